"""An event stream that goes on over lost connections: each event once, in order (pure)."""

import json
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import quote as quoted

import httpx

from app.client.errors import CallsheetError, Unreachable, refusal
from app.client.exchange import PASSING, Ask, Patience, unreachable
from app.client.results import Event, read

STREAM: Final = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
SILENT_S: Final = 45.0
"""How long a stream may say nothing: three times as long as Callsheet ever does."""


class Following:
    """
    One reader's place in the stream of a job, or, without one, of all jobs.

    An event counts once all of it has come, and its id is what the next connection resumes with. So what a cut leaves
    of an event is sent anew, and what was seen isn't.
    """

    def __init__(self, job_id: str | None, after: str | None, retries: int) -> None:
        path = "/v1/events" if job_id is None else f"/v1/jobs/{quoted(str(job_id), safe='')}/events"
        self._ask = Ask("GET", path, read_s=SILENT_S)
        self._last = after
        self._patience = Patience(retries)
        self._tries = 0
        self._follows_all = job_id is None
        self._lines = Lines()
        self._over = False

    def is_over(self) -> bool:
        """Whether nothing comes any more."""
        return self._over

    def ask(self) -> Ask:
        """How to connect now."""
        self._lines = Lines()
        resume = {} if self._last is None else {"Last-Event-ID": self._last}
        return Ask("GET", self._ask.path, headers={**STREAM, **resume}, read_s=SILENT_S)

    def connected(self, status_code: int) -> bool:
        """Whether events follow; else the answer must be read and told to `refused`."""
        self._over = status_code == 204
        return status_code in {200, 204}

    def hear(self, part: bytes) -> Iterator[Event]:
        """The events that *part* completes."""
        for fields in self._lines.feed(part):
            self._last = fields.get("id", self._last)
            self._tries = 0
            if fields["event"] in {"status", "progress"}:
                told: dict[str, Any] = json.loads(fields["data"])
                event = read(Event, {**told, "type": fields["event"], "id": fields.get("id")})
                self._over = event.is_ending and not self._follows_all
                yield event

    def refused(self, answer: httpx.Response) -> float:
        """Seconds to wait before the next try, after an *answer* that isn't a stream. Raises what it says."""
        trouble = refusal(answer)
        if answer.status_code not in PASSING:
            raise trouble
        return self._again(trouble)

    def lost(self, why: Exception) -> float:
        """Seconds to wait before the next try, after the connection broke. Raises Unreachable once it is too much."""
        return self._again(unreachable(self._ask, why))

    def ended(self) -> float:
        """Seconds to wait before the next try, if there is one, after the stream came to an end."""
        return 0.0 if self._over else self._again(Unreachable(f"GET {self._ask.path} ends again and again."))

    def _again(self, trouble: CallsheetError) -> float:
        self._tries += 1
        return self._patience.pause_s(self._tries, trouble)


class Lines:
    """
    The fields of Server-Sent Events, from parts cut anywhere.

    By newlines only: text may hold other characters that Python takes for ends of lines.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._fields: dict[str, str] = {}

    def feed(self, part: bytes) -> Iterator[dict[str, str]]:
        """The events that *part* completes, each with its `event` and `data`, and its `id` if it has one."""
        *lines, self._rest = (self._rest + part).split(b"\n")
        for line in lines:
            name, _, value = line.removesuffix(b"\r").decode().partition(":")
            if name:
                self._fields[name] = value.removeprefix(" ")
            elif line in {b"", b"\r"}:
                if "data" in self._fields:
                    yield {"event": "message", **self._fields}
                self._fields = {}
