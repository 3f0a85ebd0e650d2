"""Callsheet and fal's simulator, wired to each other without sockets; fal's clock stands still until told."""

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from starlette.types import ASGIApp

from app.callbacks.sender import Sender
from app.db import Database
from app.jobs.dispatcher import Dispatcher
from app.jobs.reconciler import Reconciler
from app.main import Service, create_app
from app.media.rescuer import Rescuer
from app.settings import Settings
from app.simulator.app import create_simulator
from app.simulator.config import SimulatorConfig
from app.wiring import Parts, opened
from app.worker import Source
from tests import clips
from tests import factories as make
from tests.doorway import BehindDoors

STEPS: Final = 10

logging.getLogger("httpx").setLevel(logging.WARNING)


@dataclass
class World:
    """Everything a test of the whole path needs."""

    db: Database
    api: httpx.AsyncClient
    fal: httpx.AsyncClient
    dispatcher: Dispatcher
    reconciler: Reconciler
    rescuer: Rescuer
    sender: Sender
    parts: Parts
    app: Service
    folder: Path

    async def dispatch(self) -> int:
        """One round of telling fal, and of ending what waited too long; how many jobs were handled."""
        await run_once(self.parts.expirer())
        return await run_once(self.dispatcher)

    async def ask(self) -> int:
        """One round of asking fal; how many jobs were handled."""
        return await run_once(self.reconciler)

    async def rescue(self) -> int:
        """One round of keeping results; how many files were handled."""
        return await run_once(self.rescuer)

    async def send(self) -> int:
        """One round of calling callers; how many callbacks were handled."""
        return await run_once(self.sender)

    async def order(self, prompt: str = "a mecha lands", **body: Any) -> Any:
        """The job of a new order."""
        wanted = {"model": make.O3, "input": {"prompt": prompt, "duration": "5"}, **body}
        answer = await self.api.post("/v1/jobs", json=wanted)
        assert answer.status_code == 202, answer.text
        return answer.json()

    async def job(self, job_id: str) -> Any:
        """The job as its caller sees it now."""
        return (await self.api.get(f"/v1/jobs/{job_id}")).json()

    async def cancel(self, job_id: str) -> httpx.Response:
        """The answer to a caller who wants a job canceled."""
        return await self.api.post(f"/v1/jobs/{job_id}/cancel")

    async def books(self) -> list[Any]:
        """What fal says it was asked for, and bills."""
        found: list[Any] = (await self.fal.get("/simulator/requests")).json()["requests"]
        return found

    async def at_fal(self, seconds: float) -> None:
        """Let fal's clock move on, in steps: what starts in one can end in the next."""
        for _ in range(STEPS):
            moved = await self.fal.put("/simulator/clock", json={"advance_s": seconds / STEPS})
            assert moved.is_success, moved.text

    async def over_at_fal(self, within_s: float = 60.0) -> None:
        """Wait until fal has ended all that it has: making a real video takes longer than moving a clock."""
        async with asyncio.timeout(within_s):
            while any(request["state"] != "COMPLETED" for request in await self.books()):
                await asyncio.sleep(0.01)

    async def ended(self, job_id: str, within_s: float = 60.0) -> Any:
        """The job once it has ended, by whoever brings the news."""
        async with asyncio.timeout(within_s):
            while (job := await self.job(job_id))["finished_at"] is None:
                await asyncio.sleep(0.01)
        return job

    async def reconciled(self, job_id: str, within_s: float = 60.0) -> Any:
        """The job once asking fal has ended it."""
        async with asyncio.timeout(within_s):
            while (job := await self.job(job_id))["finished_at"] is None:
                await make.let_time_pass(self.db)
                await self.ask()
                await asyncio.sleep(0.01)
        return job


async def run_once(source: Source) -> int:
    """Take what is due and do it all; how much that was."""
    pieces = await source.take(source.at_once)
    await asyncio.gather(*pieces)
    return len(pieces)


class Later:
    """An ASGI app that is made after those who will call it."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None
        self._calls: set[asyncio.Task[None]] = set()

    async def __call__(self, *args: Any) -> None:
        """Call it; once called, it answers to the end, even if the caller goes away, as behind a socket."""
        assert self.app is not None
        call = asyncio.ensure_future(self.app(*args))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        await asyncio.shield(call)

    async def close(self) -> None:
        """Let what is being answered be answered, as a server does before it stops."""
        self.app = None
        await asyncio.gather(*self._calls, return_exceptions=True)


async def build(
    stack: AsyncExitStack, database_url: str, folder: Path, *, history_lists_queued: bool = False, **given: Any
) -> World:
    """A world over the database at *database_url*; *given* are settings to change."""
    callsheet = Later()
    stack.enter_context(clips.shared(folder))
    simulator = create_simulator(
        SimulatorConfig(
            public_url="http://fal",
            data_dir=folder,
            run_s=3,
            queue_s=1,
            webhook_retry_s=(0.01,) * 5,
            history_lists_queued=history_lists_queued,
        ),
        webhook_transport=httpx.ASGITransport(app=callsheet, raise_app_exceptions=False),
    )
    await stack.enter_async_context(simulator.router.lifespan_context(simulator))
    to_fal = httpx.ASGITransport(app=simulator, raise_app_exceptions=False)
    settings = Settings.read(
        **{
            "database_url": database_url,
            "fal_key": "test",
            "fal_queue_url": "http://fal/queue",
            "fal_api_url": "http://fal/v1",
            "fal_rest_url": "http://fal/rest",
            "fal_jwks_url": "http://fal/rest/.well-known/jwks.json",
            "public_url": "http://callsheet",
            "callback_allow_networks": "127.0.0.0/8",
            "data": folder / "callsheet",
            "_env_file": None,
            **given,
        }
    )
    app = create_app(settings, fal_transport=to_fal)
    callsheet.app = BehindDoors(app)
    await stack.enter_async_context(app.router.lifespan_context(app))
    stack.push_async_callback(callsheet.close)
    parts = await stack.enter_async_context(opened(settings, fal_transport=to_fal))
    fal = await stack.enter_async_context(httpx.AsyncClient(transport=to_fal, base_url="http://fal"))
    ours = httpx.ASGITransport(app=BehindDoors(app), raise_app_exceptions=False)
    _, key = await make.make_key(parts.db)
    api = httpx.AsyncClient(transport=ours, base_url="http://callsheet", headers={"Authorization": f"Bearer {key}"})
    await stack.enter_async_context(api)
    stopped = await fal.put("/simulator/clock", json={"stopped": True})
    assert stopped.is_success, stopped.text
    loops = (parts.dispatcher(), parts.reconciler(), parts.rescuer(), parts.sender())
    return World(parts.db, api, fal, *loops, parts, app, settings.data)
