"""fal's books beside ours: clean after every kind of outcome, and what is wrong is named."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from app.verify import paid
from app.verify.books import BooksUnreadable, SimulatorBooks, Taken
from app.verify.verifier import Report, verify
from tests import factories as make
from tests.world import World

LENGTH_FROM_FILE = "fal-ai/kling-video/o1/video-to-video/edit"
PROMPTS = (
    "a mecha",
    "[[sim: webhook=never]] asked for",
    "[[sim: lost_answer]] found by its webhook",
    "[[sim: answer=500]] found too",
    "[[sim: refuse=429, times=1]] sent again",
    "[[sim: refuse=unknown_app]] refused for good",
    "[[sim: outcome=content_policy_violation]] failed",
    "[[sim: webhook=ok*3]] told three times",
    "[[sim: webhook=forged+unsigned+ok]] forged",
)


@dataclass
class Pages:
    """Books as a test wrote them, *size* requests to a page."""

    entries: list[Taken]
    size: int = 1000

    async def until(self) -> int:
        return len(self.entries)

    async def pages(self, until: int) -> AsyncIterator[Sequence[Taken]]:
        for start in range(0, until, self.size):
            yield self.entries[start : start + self.size]


def books(world: World) -> SimulatorBooks:
    return SimulatorBooks(world.fal, "http://fal")


async def entries(world: World) -> list[Taken]:
    source = books(world)
    return [taken async for page in source.pages(await source.until()) for taken in page]


def found(report: Report) -> dict[str, list[str]]:
    return {finding.check.name: finding.examples for finding in report.findings}


@pytest.fixture
async def done(world: World) -> tuple[World, Any]:
    """A world in which one job succeeded."""
    job = await world.order()
    await world.dispatch()
    await world.at_fal(60)
    return world, await world.ended(job["id"])


async def test_every_kind_of_outcome_is_clean_on_both_sides(world):
    jobs = [await world.order(prompt) for prompt in PROMPTS]
    edited = {"prompt": "[[sim: video_s=4, billed=0.672]] make it night", "video_url": "https://example.com/in.mp4"}
    jobs.append(await world.order(model=LENGTH_FROM_FILE, input=edited))
    await world.dispatch()
    await make.let_time_pass(world.db)
    await world.dispatch()
    await world.at_fal(100)
    statuses = [(await world.reconciled(job["id"]))["status"] for job in jobs]
    # And some that haven't ended: canceled by fal for its deadline, lost for now, in the queue, at fal.
    late = await world.order("[[sim: queue_s=500]] too late", deadline_s=30)
    lost = await world.order("[[sim: lost_answer, webhook=never]] lost")
    await world.order("[[sim: run_s=1000]] at fal")
    await world.dispatch()
    await world.at_fal(100)
    statuses.append((await world.ended(late["id"]))["status"])
    await world.order("in the queue")

    report = await verify(world.db, books=books(world))

    assert sorted(set(statuses)) == ["expired", "failed", "succeeded"]
    assert found(report).keys() == {"needs_a_verdict", "lost_answer_is_at_fal"}
    assert report.ok
    assert found(report)["needs_a_verdict"] == [lost["id"]]
    assert [report.counts[name] for name in ("jobs", "requests_at_fal")] == [14, 12]
    assert report.counts["cents_off"] == 0
    # fal made, and bills, the video whose answer got lost.
    assert report.counts["billed"] - report.counts["charged"] == Decimal("2.10")


async def test_pages_add_up(world):
    for n in range(5):
        await world.order(f"[[sim: lost_answer, webhook=never]] {n}")
    await world.dispatch()
    taken = await entries(world)

    reports = [await verify(world.db, books=Pages(taken, size)) for size in (1, 2, 5, 100)]

    assert [report.counts["requests_at_fal"] for report in reports] == [5] * 4
    named = [found(report)["lost_answer_is_at_fal"] for report in reports]
    assert [sorted(names) for names in named] == [sorted(taken.request_id for taken in taken)] * 4


async def test_a_request_nobody_ordered_is_named(done):
    world, _ = done
    stranger = Taken("stranger", "not-a-token-of-ours", Decimal("2.10"))

    report = await verify(world.db, books=Pages([*await entries(world), stranger]))

    assert not report.ok
    assert found(report) == {"request_has_its_job": ["stranger"]}


async def test_without_a_webhook_url_a_request_is_known_by_its_id(done):
    world, _ = done
    bare = [replace(taken, token=None) for taken in await entries(world)]

    assert found(await verify(world.db, books=Pages(bare))) == {}


async def test_a_second_request_of_an_attempt_is_named(done):
    world, _ = done
    (taken,) = await entries(world)

    report = await verify(world.db, books=Pages([taken, replace(taken, request_id="twin")]))

    assert found(report) == {"taken_once": ["twin"]}


@pytest.mark.parametrize("size", [1, 2])
async def test_two_requests_of_a_lost_answer_are_named(world, size):
    await world.order("[[sim: lost_answer, webhook=never]] lost")
    await world.dispatch()
    (taken,) = await entries(world)

    report = await verify(world.db, books=Pages([taken, replace(taken, request_id=f"{taken.request_id}-twin")], size))

    assert not report.ok
    assert found(report)["taken_once"] == [f"{taken.request_id}-twin"]


async def test_two_attempts_of_one_job_at_fal_are_named(world):
    job = await world.order("[[sim: refuse=429, times=1]] a mecha")
    await world.dispatch()
    await make.let_time_pass(world.db)
    await world.dispatch()
    async with world.db.session() as session:
        await session.execute(text("UPDATE attempts SET fal_request_id = 'first' WHERE number = 1"))
    (second,) = await entries(world)

    report = await verify(world.db, books=Pages([Taken("first", None, None), second]))

    assert found(report)["taken_once"] == sorted(["first", second.request_id])
    assert found(report)["one_request"] == [job["id"]]


async def test_what_looked_refused_and_was_taken_is_named(world):
    await world.order()
    await world.dispatch()
    (taken,) = await entries(world)
    async with world.db.session() as session:
        await session.execute(text("UPDATE attempts SET fal_request_id = NULL, status = 'refused'"))

    report = await verify(world.db, books=Pages([taken]))

    assert found(report)["refused_was_not_taken"] == [taken.request_id]


async def test_a_bill_that_differs_from_the_charge_is_named_to_the_cent(done):
    world, _ = done
    (taken,) = await entries(world)

    report = await verify(world.db, books=Pages([replace(taken, billed=Decimal("2.1105"))]))

    assert found(report) == {"billed_is_charged": [taken.request_id]}
    assert (report.counts["billed"], report.counts["cents_off"]) == (Decimal("2.1105"), Decimal("1.05"))


async def test_a_bill_for_a_refusal_is_a_warning(world):
    job = await world.order("[[sim: outcome=content_policy_violation, billed=0.42]] a mecha")
    await world.dispatch()
    await world.at_fal(60)
    await world.ended(job["id"])

    report = await verify(world.db, books=books(world))

    assert report.ok
    assert list(found(report)) == ["billed_without_a_video"]


def test_every_check_of_the_books_is_tried_here():
    told = Path(__file__).read_text(encoding="utf-8")

    assert all(f'"{check.name}"' in told for check in paid.CHECKS)


async def test_what_fal_takes_meanwhile_is_left_for_the_next_time(done):
    world, _ = done
    source = books(world)
    until = await source.until()
    await world.order()
    await world.dispatch()

    assert [len(page) async for page in source.pages(until)] == [1]


@pytest.mark.parametrize(
    "answer",
    [httpx.Response(500), httpx.Response(200, text="<html>"), httpx.Response(200, json={"requests": []})],
)
async def test_books_that_cannot_be_read_prove_nothing(db, answer):
    async with httpx.AsyncClient(transport=httpx.MockTransport(lambda _: answer)) as http:
        with pytest.raises(BooksUnreadable):
            await verify(db, books=SimulatorBooks(http, "http://fal"))
