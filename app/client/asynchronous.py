"""AsyncClient: Callsheet for programs with an event loop."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self, TypeVar, Unpack

import httpx

from app.client.address import RETRIES, Address
from app.client.calls import Calls
from app.client.exchange import Ask, Flow, Pause
from app.client.following import Following
from app.client.orders import OrderOptions, Wanted
from app.client.results import Balance, Event, File, Job, Quote
from app.client.saving import READ_S, Taking, target

T = TypeVar("T")

PART: Final = 262_144


class AsyncClient:
    """Callsheet, over HTTP, as `Client` is; its calls are awaited."""

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        retries: int = RETRIES,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        """
        For the Callsheet at *url*; what isn't given is read from CALLSHEET_URL and CALLSHEET_API_KEY.

        *http* is what to connect with instead, say through a proxy.
        """
        self._address = Address.of(url, api_key)
        self._retries = retries
        self._calls = Calls(retries)
        self._http = http or httpx.AsyncClient()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.aclose()

    async def create(self, model: str, input: Mapping[str, Any], **options: Unpack[OrderOptions]) -> Job:  # noqa: A002
        """Order a video; as `Client.create`."""
        return await self._run(self._calls.create(model, input, options))

    async def get(self, job_id: str) -> Job:
        """A job as it is now."""
        return await self._run(self._calls.get(job_id))

    async def list(self, **wanted: Unpack[Wanted]) -> AsyncIterator[Job]:
        """All jobs that are *wanted*, newest first; as `Client.list`."""
        cursor: str | None = None
        while True:
            jobs, cursor = await self._run(self._calls.page(wanted, cursor))
            for job in jobs:
                yield job
            if cursor is None:
                return

    async def cancel(self, job_id: str) -> Job:
        """Ask for a job's end; as `Client.cancel`."""
        return await self._run(self._calls.cancel(job_id))

    async def retry(self, job_id: str, *, max_cost: Decimal | str | None = None) -> Job:
        """A new job for one that ended without a video; as `Client.retry`."""
        return await self._run(self._calls.retry(job_id, max_cost))

    async def quote(self, model: str, input: Mapping[str, Any]) -> Quote:  # noqa: A002
        """What an order would cost; nothing is held or kept."""
        return await self._run(self._calls.quote(model, input))

    async def balance(self) -> Balance:
        """What there is to spend."""
        return await self._run(self._calls.balance())

    async def upload(self, source: str | os.PathLike[str] | bytes, *, name: str | None = None) -> File:
        """Hand in an image, video or sound; as `Client.upload`."""
        return await self._run(self._calls.upload(source, name))

    async def wait(self, job_id: str, timeout_s: float | None = 3600.0) -> Job:
        """A job once it has ended; as `Client.wait`."""
        return await self._run(self._calls.wait(job_id, timeout_s))

    async def run(
        self,
        model: str,
        input: Mapping[str, Any],  # noqa: A002
        *,
        timeout_s: float | None = 3600.0,
        **options: Unpack[OrderOptions],
    ) -> Job:
        """Order a video and wait until it is there; as `Client.run`."""
        return await self._run(self._calls.run(model, input, options, timeout_s))

    async def events(self, job_id: str | None = None, *, after: str | None = None) -> AsyncIterator[Event]:
        """What happens to a job, or to all; as `Client.events`. Close it (`aclose`) if you leave it before its end."""
        following = Following(job_id, after, self._retries)
        while not following.is_over():
            try:
                async with self._http.stream(**self._address.request(following.ask())) as answer:
                    if following.connected(answer.status_code):
                        async for part in answer.aiter_raw():
                            for event in following.hear(part):
                                yield event
                        pause_s = following.ended()
                    else:
                        await answer.aread()
                        pause_s = following.refused(answer)
            except httpx.TransportError as lost:
                pause_s = following.lost(lost)
            await asyncio.sleep(pause_s)

    async def download(
        self, job_id: str, to: str | os.PathLike[str] | BinaryIO, *, number: int = 1, timeout_s: float = 60.0
    ) -> int:
        """Save a job's video; as `Client.download`."""
        taking = Taking(self._retries)
        with target(to) as file:
            while True:
                link = await self._run(self._calls.link(job_id, number, timeout_s))
                try:
                    async with self._http.stream("GET", link, headers=taking.headers(), timeout=READ_S) as answer:
                        if taking.goes_on(answer):
                            async for part in answer.aiter_raw():
                                await asyncio.to_thread(file.write, part)
                                taking.took(part)
                            return taking.size
                        await answer.aread()
                        pause_s = taking.refused(answer)
                except httpx.TransportError as lost:
                    pause_s = taking.lost(lost)
                await asyncio.sleep(pause_s)

    async def _run(self, flow: Flow[T]) -> T:
        try:
            step = next(flow)
            while True:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    step = flow.send(None)
                    continue
                try:
                    answer = await self._send(step)
                except httpx.TransportError as lost:
                    step = flow.throw(lost)
                else:
                    step = flow.send(answer)
        except StopIteration as end:
            found: T = end.value
            return found

    async def _send(self, ask: Ask) -> httpx.Response:
        request = self._address.request(ask)
        if ask.file is None:
            return await self._http.request(**request)
        # Each try reads it from its beginning.
        content = _parts(ask.file) if isinstance(ask.file, Path) else ask.file
        return await self._http.request(**request, content=content)


async def _parts(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while part := await asyncio.to_thread(file.read, PART):
            yield part
