"""HTTP that asks the doors first: what they answer is never a call of ASGI, and leaves as one piece."""

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from app.cli.patient import Patient
from app.jobs.doors import Answer, Doors

CLOSE: Final = b"connection: close\r\n"
SOON_S: Final = 1.0
"""How long a body may take for a door to be worth the wait; the app has its own patience after that."""


async def _rest(cycle: RequestResponseCycle) -> None:
    """Wait for the rest of the body, if it comes within SOON_S and without being asked for."""
    if not cycle.waiting_for_100_continue:
        with suppress(TimeoutError):
            async with asyncio.timeout(SOON_S):
                # With more than HIGH_WATER_LIMIT no more is read until the app takes some.
                while cycle.more_body and not cycle.disconnected and len(cycle.body) <= HIGH_WATER_LIMIT:
                    cycle.message_event.clear()
                    await cycle.message_event.wait()
        # For the app, should it be the one to answer.
        cycle.message_event.set()


class Doorway(Patient):
    """
    uvicorn's HTTP, but that a request whose body comes with its head, or soon after, is first brought to *doors*.

    Most requests come so, many in two packets. One whose body is large or takes longer, and one that the doors leave
    alone, is the app's, as if there were none.
    """

    def __init__(self, *given: Any, doors: Doors, **named: Any) -> None:
        super().__init__(*given, **named)
        self._doors = doors

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        super()._start_asgi_task(cycle, partial(self._ask_doors, cycle, app))

    async def _ask_doors(
        self, cycle: RequestResponseCycle, app: ASGIApp, scope: Scope, receive: Receive, send: Send
    ) -> None:
        # What came with one read was taken in before the request's task began.
        if cycle.more_body and self._doors.have_one_for(scope):
            await _rest(cycle)
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
