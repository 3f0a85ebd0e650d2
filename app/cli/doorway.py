"""HTTP that asks the doors first: what they answer is never a call of ASGI, and leaves as one piece."""

from functools import partial
from typing import Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from app.cli.patient import Patient
from app.jobs.doors import Answer, Doors

CLOSE: Final = b"connection: close\r\n"


class Doorway(Patient):
    """
    uvicorn's HTTP, but that a request that came whole with one read is first brought to *doors*.

    Most requests come so. One whose body takes longer, and one that the doors leave alone, is the app's, as if there
    were none.
    """

    def __init__(self, *given: Any, doors: Doors, **named: Any) -> None:
        super().__init__(*given, **named)
        self._doors = doors

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        super()._start_asgi_task(cycle, partial(self._ask_doors, cycle, app))

    async def _ask_doors(
        self, cycle: RequestResponseCycle, app: ASGIApp, scope: Scope, receive: Receive, send: Send
    ) -> None:
        # A task begins when all that came with one read has been taken in.
        answer = None if cycle.more_body else await self._doors.answer(scope, bytes(cycle.body))
        if answer is None:
            await app(scope, receive, send)
            return
        if self.flow.write_paused and not cycle.disconnected:
            await self.flow.drain()
        # Of several requests on a connection that is gone, uvicorn tells only the last.
        cycle.disconnected = cycle.disconnected or self.transport.is_closing()
        if not cycle.disconnected:
            self._send(cycle, answer)

    def _send(self, cycle: RequestResponseCycle, answer: Answer) -> None:
        lines = [b"%b: %b\r\n" % header for header in (*cycle.default_headers, *answer.headers)]
        end = b"\r\n" if cycle.keep_alive else CLOSE + b"\r\n"
        self.transport.write(b"".join((STATUS_LINE[answer.status], *lines, end, answer.body)))
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()
