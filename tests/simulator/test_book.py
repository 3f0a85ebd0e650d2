"""What the books keep, also when the process is killed."""

import asyncio
import re
import signal
import sqlite3
import sys
from pathlib import Path

import httpx
import pytest

from app.simulator import clips
from app.simulator.book import Book
from app.simulator.requests import Request
from tests.ports import free_port
from tests.simulator.conftest import AUTH, HOOK, O3, OpenBox


async def test_everything_accepted_survives_a_kill_and_finishes_afterwards(open_box: OpenBox, tmp_path: Path):
    process, url = await start(tmp_path)
    async with httpx.AsyncClient(base_url=url, headers=AUTH, timeout=60) as client:

        async def order(number: int) -> str:
            body = {"prompt": f"{number} [[sim: video_s=0.1]]", "duration": "5"}
            answer = await client.post(f"/{O3}", params={"fal_webhook": HOOK}, json=body)
            return str(answer.json()["request_id"])

        ids = await asyncio.gather(*(order(number) for number in range(20)))
        jwks = (await client.get("/rest/.well-known/jwks.json")).json()
        process.send_signal(signal.SIGKILL)
        await process.wait()

    box = await open_box(data_dir=tmp_path)
    for request_id in ids:
        await box.told(request_id)

    assert sorted(entry["request_id"] for entry in await box.books()) == sorted(ids)
    assert {entry["billed"] for entry in await box.books()} == {"2.10"}
    assert sorted(said["request_id"] for said in box.hook.said) == sorted(ids)
    assert (await box.client.get("/rest/.well-known/jwks.json")).json() == jwks


async def start(data: Path) -> tuple[asyncio.subprocess.Process, str]:
    """A simulator in a process of its own, where nothing ever starts to run."""
    port = free_port()
    command = [sys.executable, "-m", "app.simulator", "--port", str(port), "--data", str(data), "--queue-s", "600"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL, stderr=-3)
    url = f"http://127.0.0.1:{port}"
    async with httpx.AsyncClient(base_url=url) as client:
        while True:
            assert process.returncode is None
            try:
                await client.get("/simulator/clock")
            except httpx.TransportError:
                await asyncio.sleep(0.02)
            else:
                return process, url


async def test_ended_requests_come_back_as_they_were(open_box: OpenBox, tmp_path: Path):
    first = await open_box(data_dir=tmp_path)
    request_id = await first.submit({"prompt": "x", "duration": "5"})
    await first.told(request_id)
    before = (await first.client.get(f"/simulator/requests/{request_id}")).json()
    await first.simulator.book.committed()

    second = await open_box(data_dir=tmp_path)

    after = (await second.client.get(f"/simulator/requests/{request_id}")).json()
    assert after == before
    assert (await second.result(request_id)).json() == (await first.result(request_id)).json()
    assert second.hook.heard == []
    assert (await second.client.get("/simulator/account")).json()["spent"] == "2.10"


async def test_account_and_clock_are_kept(open_box: OpenBox, tmp_path: Path):
    first = await open_box(data_dir=tmp_path)
    await first.client.put("/simulator/account", json={"locked": True})
    await first.client.put("/simulator/clock", json={"offset_s": 7200})
    await first.simulator.book.committed()

    second = await open_box(data_dir=tmp_path)

    assert (await second.client.get("/simulator/account")).json()["locked"] is True
    assert abs((await second.client.get("/simulator/clock")).json()["offset_s"] - 7200) < 5


async def test_running_request_is_tried_again_after_a_restart(open_box: OpenBox, tmp_path: Path):
    first = await open_box(data_dir=tmp_path, run_s=600)
    request_id = await first.submit()
    running = await first.until(request_id, lambda request: request.started_at is not None)
    first.simulator.book.write(running)
    await first.simulator.book.committed()

    second = await open_box(data_dir=tmp_path)
    request = await second.told(request_id)

    assert request.attempts == 2
    assert second.hook.said[0]["gateway_request_id"] != request_id


async def test_orders_of_one_moment_share_a_commit(open_box: OpenBox, tmp_path: Path):
    box = await open_box(data_dir=tmp_path, queue_s=600)
    commits: list[int] = []
    commit = box.simulator.book._commit

    def counted(rows: list[tuple[str, str, str]]) -> None:
        commits.append(len(rows))
        commit(rows)

    box.simulator.book._commit = counted  # type: ignore[method-assign]

    await asyncio.gather(*(box.submit() for _ in range(50)))

    assert sum(commits) == 50
    assert len(commits) < 25


async def test_nobody_hears_accepted_of_what_could_not_be_written(open_box: OpenBox, tmp_path: Path):
    box = await open_box(data_dir=tmp_path, queue_s=600)
    commit, book = box.simulator.book._commit, box.simulator.book

    def full(rows: list[tuple[str, str, str]]) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    book._commit = full  # type: ignore[method-assign]
    with pytest.raises(sqlite3.OperationalError):
        await box.submit()
    book._commit = commit  # type: ignore[method-assign]

    assert await box.submit()


async def test_waiting_for_a_commit_does_not_wait_for_those_after_it(tmp_path: Path):
    book = Book(tmp_path / "book.db")
    book.note("a", 0)
    done = asyncio.create_task(book.committed())

    number = 0
    while not done.done():
        number += 1
        book.note("a", number)
        await asyncio.sleep(0)
    await book.close()

    again = Book(tmp_path / "book.db")
    assert again.noted("a") == number
    await again.close()


def test_request_is_the_same_after_the_book(tmp_path: Path):
    request = Request("id", "a/b", "a/b/c", "{}", 1.5, words={"retries": 2, "webhook": "early+twice"})

    again = Request.from_row(request.to_row())

    assert again.to_row() == request.to_row()
    assert again.script.retries == 2


async def test_simulator_without_an_encoder_says_so_at_once(open_box: OpenBox, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(clips, "av", None)

    with pytest.raises(clips.NoEncoder, match="makes its videos with PyAV"):
        await open_box()


def test_module_tells_how_to_use_it():
    from app.simulator import __main__  # noqa: PLC0415

    assert re.match(r"python -m app\.simulator", __main__.__doc__ or "")
