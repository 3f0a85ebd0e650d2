"""The bench itself: its arithmetic, its report, and a load client that counts wrong answers as failures."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.bench import report
from tests.bench.__main__ import FIGURES
from tests.bench.figure import Figure, NotYet, Omitted, Sample, Wrong, measured, percentile
from tests.bench.load import Order, _due, run
from tests.bench.profile import shares

BODY = b'{"id":"0197a2b8-6c4e-7d31-9f00-3a5f0c1d2e4b","status":"queued"}'


def answer(status: int = 202, body: bytes = BODY) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


@asynccontextmanager
async def serving(*answers: bytes, got: list[bytes] | None = None) -> AsyncIterator[int]:
    """A server that gives *answers* in turn, over and over; an empty one closes the connection."""
    turn = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal turn
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                text = answers[turn % len(answers)]
                turn += 1
                if got is not None:
                    got.append(head)
                if not text:
                    break
                writer.write(text)
        except asyncio.IncompleteReadError:
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def order(port: int, **more: object) -> Order:
    given: dict[str, object] = {"seconds": 5.0, "most": 40, "connections": 4, **more}
    return Order(port, [["GET /1 HTTP/1.1", ""], ["GET /2 HTTP/1.1", ""]], 202, '"queued"', **given)  # type: ignore[arg-type]


async def test_load_sends_as_many_as_ordered_each_in_turn():
    got: list[bytes] = []
    async with serving(answer(), got=got) as port:
        outcome = await run(order(port))

    assert (outcome.right, outcome.wrong, len(outcome.ids), len(outcome.latencies)) == (40, 0, 40, 40)
    assert outcome.ids[0] == "0197a2b8-6c4e-7d31-9f00-3a5f0c1d2e4b"
    assert sorted(got) == [b"GET /1 HTTP/1.1\r\n\r\n"] * 20 + [b"GET /2 HTTP/1.1\r\n\r\n"] * 20


@pytest.mark.parametrize(
    "bad", [answer(500), answer(200), answer(202, b"{}"), b"", b"HTTP/1.1 202 X\r\n\r\n", b"HTTP/1.1 20"],
    ids=["error", "other_status", "other_body", "closed", "no_length", "half"],
)  # fmt: skip
async def test_wrong_answers_are_failures(bad):
    async with serving(bad, answer()) as port:
        outcome = await run(order(port, connections=1, most=10, patience_s=0.1, seconds=0.2))

    assert outcome.wrong >= 1
    assert outcome.right < 10
    assert outcome.first_wrong


async def test_answers_that_come_in_pieces_are_whole():
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for byte in answer():
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        outcome = await run(order(server.sockets[0].getsockname()[1], connections=1, most=1))

    assert (outcome.right, outcome.wrong) == (1, 0)


async def test_load_at_a_rate_asks_that_often_and_times_from_when_it_was_due():
    async with serving(answer()) as port:
        outcome = await run(order(port, rate=200.0, most=20))

    assert outcome.right == 20
    assert outcome.seconds >= 0.09


def test_load_at_a_rate_is_due_for_as_many_seconds_as_ordered():
    assert list(_due(order(1, rate=200.0, seconds=0.1, most=1000), 7.0)) == [7 + n / 200 for n in range(20)]


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([5, 1, 3], 50, 3), (list(range(1, 101)), 99, 99), ([7], 99, 7), ([1, 2], 50, 1), ([1, 2, 3, 4], 100, 4)],
)
def test_percentiles(values, percent, expected):
    assert percentile(values, percent) == expected


def test_of_nothing_there_is_no_percentile():
    assert math.isnan(percentile([], 50))


def sides(ours: list[float], theirs: list[float], log: list[str] | None = None) -> tuple[object, object]:
    def side(name: str, values: list[float]) -> object:
        left = list(values)

        async def sample(stage: object) -> Sample:
            if log is not None:
                log.append(name)
            return Sample(left.pop(0))

        return sample

    return side("ours", ours), side("theirs", theirs)


async def figure_of(ours: list[float], theirs: list[float], **bound: float) -> dict[str, object]:
    mine, rival = sides(ours, theirs)
    return await measured(Figure("x", "jobs/s", "a rival", mine, rival, **bound), None)  # type: ignore[arg-type]


async def test_a_figure_is_a_ratio_of_medians_from_rounds_in_turns():
    log: list[str] = []
    mine, rival = sides([10, 30, 20], [40, 5, 10], log)

    found = await measured(Figure("x", "jobs/s", "a rival", mine, rival, at_least=2.0), None)  # type: ignore[arg-type]

    assert log == ["ours", "theirs"] * 3
    assert (found["value"], found["rival"], found["ratio"], found["met"]) == (20, 10, 2.0, True)
    assert found["spread"] == {"value": [10, 30], "rival": [5, 40]}
    assert [(one["value"], one["rival"]) for one in found["rounds"]] == [(10, 40), (30, 5), (20, 10)]


async def test_bounds_cut_both_ways():
    assert (await figure_of([1, 1, 1], [2, 2, 2], at_least=0.51))["met"] is False
    assert (await figure_of([1, 1, 1], [2, 2, 2], at_most=0.5))["met"] is True
    assert (await figure_of([3, 3, 3], [2, 2, 2], at_most=1.4))["met"] is False


@pytest.mark.parametrize(
    ("error", "state"),
    [(NotYet("x"), "not yet"), (Omitted("x"), "omitted"), (Wrong("x"), "wrong"), (ZeroDivisionError("x"), "wrong")],
)
async def test_a_figure_that_stopped_has_no_number(error, state):
    turn = 0

    async def ours(stage: object) -> Sample:
        nonlocal turn
        turn += 1
        if turn == 2:
            raise error
        return Sample(1.0)

    found = await measured(Figure("x", "jobs/s", "nothing", ours, at_least=1.0), None)

    assert (found["state"], found["value"], found["ratio"], found["met"]) == (state, None, None, None)
    assert "x" in str(found["why"])


async def test_the_report_has_each_figure_and_a_row_for_it(tmp_path):
    entries = {"x": await figure_of([1, 2, 3], [4, 5, 6], at_least=1.0), "y": await figure_of([], [], at_most=2.0)}

    text = report.write(tmp_path, {"figures": entries, "machine": {"cores": 2}})

    kept = json.loads((tmp_path / "report.json").read_text())
    assert kept["figures"].keys() == {"x", "y"}
    assert {"what", "value", "rival", "ratio", "at_least", "rounds"} <= kept["figures"]["x"].keys()
    assert "| x | jobs/s; vs a rival | 2 (1–3) | 5 (4–6) | 0.4 | ≥ 1 | **missed** |" in text
    assert "| y |" in text
    assert (tmp_path / "report.md").read_text() == text


def test_every_figure_has_one_bound_and_a_name_of_its_own():
    assert len({figure.key for figure in FIGURES}) == len(FIGURES)
    assert {figure.key[0] for figure in FIGURES} == set("abcdefghijklmn")
    assert all((figure.at_least is None) != (figure.at_most is None) for figure in FIGURES)


def test_a_profile_is_of_packages_without_what_a_process_does_to_start():
    raw = """main (app/cli/__main__.py:5);run (asyncio/runners.py:190);accept (app/jobs/accepting.py:107) 3
main (app/cli/__main__.py:5);_find_and_load (<frozen importlib._bootstrap>:1176);<module> (httpx/__init__.py:3) 6
main (app/cli/__main__.py:5);create_app (app/main.py:90);__new__ (pydantic/_internal/_model_construction.py:110) 10
main (app/cli/__main__.py:5);run (asyncio/runners.py:190);execute (psycopg/cursor_async.py:97) 1
"""

    assert shares(raw) == {"app/jobs": 75.0, "psycopg": 25.0}
    assert shares(raw, starting=True) == {"pydantic": 50.0, "importing": 30.0, "app/jobs": 15.0, "psycopg": 5.0}
    assert shares("") == {}


async def test_the_report_says_why_a_figure_is_missed_and_what_was_measured_instead(tmp_path):
    async def ours(stage: object) -> Sample:
        return Sample(3.0, instead="microseconds")

    found = await measured(Figure("x", "instructions", "nothing", ours, at_most=1.0), None)
    found["profile"] = {"serve": {"app/jobs": 75.0, "psycopg": 25.0}, "work": "py-spy can't attach: no"}

    text = report.write(tmp_path, {"figures": {"x": found}, "machine": {}})

    assert "| **missed**; microseconds |" in text
    assert "- x, `serve`: app/jobs 75, psycopg 25" in text
    assert "- x, `work`: py-spy can't attach: no" in text


def test_the_report_tells_what_each_index_takes_but_not_of_those_that_take_nothing():
    heavy = {"index": "ix_a", "why": "pages", "disk_per_job": 96.5, "log_per_life": 310.0, "images_per_life": 12.0}
    idle = {"index": "ix_b", "why": "rare", "disk_per_job": 0.2, "log_per_life": 0.0, "images_per_life": 0.0}

    text = report.table({"figures": {}, "machine": {}, "indexes": [heavy, idle]})

    assert "| ix_a | 96.5 | 310 | 12 | pages |" in text
    assert "ix_b" not in text
