"""Each call of the API as a Flow, for both clients (pure)."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote as quoted
from uuid import uuid4

from app.client import results
from app.client.errors import CallsheetError, Conflict, JobNotSucceeded, StillRunning
from app.client.exchange import Ask, Flow, Patience, Pause, answered, stranger, told
from app.client.orders import OrderOptions, Wanted, amount_of, body_of, query_of
from app.client.results import Balance, File, Job, Quote, read

LONG_POLL_S: Final = 30
"""How long one question after a job's end stays open, in seconds: proxies cut what is silent for a minute."""
POLL_S: Final = 1.0
"""How often to ask where such a question isn't kept open."""
PAGE: Final = 100
UPLOAD_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Calls:
    """What can be asked of Callsheet; a call that isn't answered is made again up to *retries* times."""

    retries: int
    now: Callable[[], float] = time.monotonic

    def create(self, model: str, value: Mapping[str, Any], options: OrderOptions) -> Flow[Job]:
        """The job of an order. All its tries have one key, so that an answer that got lost costs nothing."""
        key = options.get("idempotency_key") or str(uuid4())
        ask = Ask("POST", "/v1/jobs", body=body_of(model, value, options), headers={"Idempotency-Key": key})
        try:
            return (yield from self._job(ask))
        except CallsheetError as error:
            error.idempotency_key = key
            raise

    def get(self, job_id: str) -> Flow[Job]:
        """A job as it is now."""
        return (yield from self._job(Ask("GET", _path(job_id))))

    def page(self, wanted: Wanted, cursor: str | None) -> Flow[tuple[list[Job], str | None]]:
        """A page of jobs, and the cursor of the next."""
        params = query_of(wanted) | {"limit": PAGE} | ({"cursor": cursor} if cursor else {})
        found = yield from self._told(Ask("GET", "/v1/jobs", params=params))
        return [results.job(each) for each in found["data"]], found["next_cursor"]

    def cancel(self, job_id: str) -> Flow[Job]:
        """A job of which it is noted that it should end."""
        return (yield from self._job(Ask("POST", f"{_path(job_id)}/cancel")))

    def retry(self, job_id: str, max_cost: Decimal | str | None) -> Flow[Job]:
        """The job that tries another again; a job is retried once, so this may be heard twice."""
        params = {} if max_cost is None else {"max_cost": amount_of(max_cost)}
        return (yield from self._job(Ask("POST", f"{_path(job_id)}/retry", params=params)))

    def quote(self, model: str, value: Mapping[str, Any]) -> Flow[Quote]:
        """What an order would cost."""
        asked = Ask("POST", "/v1/quotes", body={"model": model, "input": dict(value)})
        return read(Quote, (yield from self._told(asked)))

    def balance(self) -> Flow[Balance]:
        """What there is to spend."""
        return read(Balance, (yield from self._told(Ask("GET", "/v1/balance"))))

    def upload(self, source: str | os.PathLike[str] | bytes, name: str | None) -> Flow[File]:
        """A file for inputs. An upload whose answer got lost leaves a second file, which Callsheet deletes in time."""
        file = source if isinstance(source, bytes) else Path(source)
        called = name or (file.name if isinstance(file, Path) else None)
        ask = Ask(
            "POST",
            "/v1/files",
            params={"filename": called} if called else {},
            headers={"Content-Type": "application/octet-stream"},
            file=file,
            read_s=UPLOAD_S,
        )
        return read(File, (yield from self._told(ask)))

    def wait(self, job_id: str, timeout_s: float | None) -> Flow[Job]:
        """The job once it has ended. Raises StillRunning after *timeout_s* seconds, Unreachable if nobody answers."""
        until = float("inf") if timeout_s is None else self.now() + timeout_s
        while True:
            asked_at = self.now()
            # In whole seconds, as the standard has it.
            open_s = int(max(0.0, min(LONG_POLL_S, until - asked_at)))
            ask = Ask("GET", _path(job_id), headers={"Prefer": f"wait={open_s}"}, read_s=open_s + 10.0)
            # A service that restarts keeps the job; so it pays to keep asking.
            answer = yield from answered(ask, Patience(self.retries, until, self.now))
            job = results.job(told(answer))
            if job.ended:
                return job
            if self.now() >= until:
                raise StillRunning(job)
            if self.now() - asked_at < POLL_S:
                yield Pause(min(POLL_S, until - self.now()))

    def run(self, model: str, value: Mapping[str, Any], options: OrderOptions, timeout_s: float | None) -> Flow[Job]:
        """The job of an order once it has succeeded. Raises JobNotSucceeded if it ended otherwise."""
        job = yield from self.create(model, value, options)
        job = yield from self.wait(job.id, timeout_s)
        if not job.succeeded:
            raise JobNotSucceeded(job)
        return job

    def link(self, job_id: str, number: int, timeout_s: float) -> Flow[str]:
        """Where our copy of a result is; the link needs no key. Waits *timeout_s* seconds for the copy to be safe."""
        until = self.now() + timeout_s
        tries = 0
        while True:
            tries += 1
            try:
                ask = Ask("GET", f"{_path(job_id)}/output", params={"number": number})
                answer = yield from self._answered(ask)
            except Conflict as conflict:
                if conflict.code != "not_safe_yet":
                    raise
                yield Pause(Patience(0, until, self.now).pause_s(tries, conflict))
            else:
                location = answer.headers.get("location")
                if location is None:
                    raise stranger(answer)
                return str(answer.url.join(location))

    def _answered(self, ask: Ask) -> Flow[Any]:
        return (yield from answered(ask, Patience(self.retries)))

    def _told(self, ask: Ask) -> Flow[dict[str, Any]]:
        return told((yield from self._answered(ask)))

    def _job(self, ask: Ask) -> Flow[Job]:
        return results.job((yield from self._told(ask)))


def _path(job_id: str) -> str:
    return f"/v1/jobs/{quoted(str(job_id), safe='')}"
