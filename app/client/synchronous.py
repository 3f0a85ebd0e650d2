"""Client: Callsheet for programs that wait for each answer."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar, Unpack

import httpx

from app.client.address import RETRIES, Address
from app.client.calls import Calls
from app.client.exchange import Ask, Flow, Pause
from app.client.following import Following
from app.client.orders import OrderOptions, Wanted
from app.client.results import Balance, Event, File, Job, Quote
from app.client.saving import READ_S, Taking, target

T = TypeVar("T")


class Client:
    """
    Callsheet, over HTTP; can be shared by threads.

    What isn't answered, or with 429 or 5xx, is asked again up to *retries* times, after what Retry-After says or ever
    longer. Raises Unreachable once that is over, and Refused, by kind, for what Callsheet won't do.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        retries: int = RETRIES,
        http: httpx.Client | None = None,
    ) -> None:
        """
        For the Callsheet at *url*; what isn't given is read from CALLSHEET_URL and CALLSHEET_API_KEY.

        *http* is what to connect with instead, say through a proxy.
        """
        self._address = Address.of(url, api_key)
        self._retries = retries
        self._calls = Calls(retries)
        self._http = http or httpx.Client()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def create(self, model: str, input: Mapping[str, Any], **options: Unpack[OrderOptions]) -> Job:  # noqa: A002
        """
        Order a video.

        However often it has to be sent until it is answered, that is one job: all tries have one idempotency key. If
        this gives up, the error has that key; to give it to a new `create` of the same order goes on where it was.
        """
        return self._run(self._calls.create(model, input, options))

    def get(self, job_id: str) -> Job:
        """A job as it is now."""
        return self._run(self._calls.get(job_id))

    def list(self, **wanted: Unpack[Wanted]) -> Iterator[Job]:
        """All jobs that are *wanted*, newest first; the pages are asked for on the way."""
        cursor: str | None = None
        while True:
            jobs, cursor = self._run(self._calls.page(wanted, cursor))
            yield from jobs
            if cursor is None:
                return

    def cancel(self, job_id: str) -> Job:
        """Ask for a job's end. It is free if fal never had it; else it ends as fal says, perhaps charged."""
        return self._run(self._calls.cancel(job_id))

    def retry(self, job_id: str, *, max_cost: Decimal | str | None = None) -> Job:
        """A new job for one that ended without a video, or the one that it has already."""
        return self._run(self._calls.retry(job_id, max_cost))

    def quote(self, model: str, input: Mapping[str, Any]) -> Quote:  # noqa: A002
        """What an order would cost; nothing is held or kept."""
        return self._run(self._calls.quote(model, input))

    def balance(self) -> Balance:
        """What there is to spend."""
        return self._run(self._calls.balance())

    def upload(self, source: str | os.PathLike[str] | bytes, *, name: str | None = None) -> File:
        """Hand in an image, video or sound, as a path or its bytes; its `url` goes into orders."""
        return self._run(self._calls.upload(source, name))

    def wait(self, job_id: str, timeout_s: float | None = 3600.0) -> Job:
        """
        A job once it has ended, in whatever way.

        Raises StillRunning after *timeout_s* seconds (None: never); the job goes on. A service that can't be reached
        meanwhile is waited for, too.
        """
        return self._run(self._calls.wait(job_id, timeout_s))

    def run(
        self,
        model: str,
        input: Mapping[str, Any],  # noqa: A002
        *,
        timeout_s: float | None = 3600.0,
        **options: Unpack[OrderOptions],
    ) -> Job:
        """Order a video and wait until it is there. Raises JobNotSucceeded if it never will be."""
        return self._run(self._calls.run(model, input, options, timeout_s))

    def events(self, job_id: str | None = None, *, after: str | None = None) -> Iterator[Event]:
        """
        What happened to a job and then what happens, until it ends; or, without one, what happens to all jobs from now.

        *after* is the id of the last event seen, perhaps by another process. Lost connections are made anew, without a
        gap or a repeat.
        """
        following = Following(job_id, after, self._retries)
        while not following.is_over():
            try:
                with self._http.stream(**self._address.request(following.ask())) as answer:
                    if following.connected(answer.status_code):
                        for part in answer.iter_raw():
                            yield from following.hear(part)
                        pause_s = following.ended()
                    else:
                        answer.read()
                        pause_s = following.refused(answer)
            except httpx.TransportError as lost:
                pause_s = following.lost(lost)
            time.sleep(pause_s)

    def download(
        self, job_id: str, to: str | os.PathLike[str] | BinaryIO, *, number: int = 1, timeout_s: float = 60.0
    ) -> int:
        """
        Save a job's video, from our own copy, as a file or into a stream; how many bytes it has.

        Waits *timeout_s* seconds for the copy to be safe, and raises Conflict after that. A broken download goes on
        where it was. *number* says which file, if the output has several.
        """
        taking = Taking(self._retries)
        with target(to) as file:
            while True:
                link = self._run(self._calls.link(job_id, number, timeout_s))
                try:
                    with self._http.stream("GET", link, headers=taking.headers(), timeout=READ_S) as answer:
                        if taking.goes_on(answer):
                            for part in answer.iter_raw():
                                file.write(part)
                                taking.took(part)
                            return taking.size
                        answer.read()
                        pause_s = taking.refused(answer)
                except httpx.TransportError as lost:
                    pause_s = taking.lost(lost)
                time.sleep(pause_s)

    def _run(self, flow: Flow[T]) -> T:
        try:
            step = next(flow)
            while True:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    step = flow.send(None)
                    continue
                try:
                    answer = self._send(step)
                except httpx.TransportError as lost:
                    step = flow.throw(lost)
                else:
                    step = flow.send(answer)
        except StopIteration as end:
            found: T = end.value
            return found

    def _send(self, ask: Ask) -> httpx.Response:
        request = self._address.request(ask)
        if ask.file is None:
            return self._http.request(**request)
        # Each try reads it from its beginning.
        with ask.file.open("rb") if isinstance(ask.file, Path) else nullcontext(ask.file) as content:
            return self._http.request(**request, content=content)
