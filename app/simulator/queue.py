"""
The queue: who waits, who runs, and how each ends.

Everything here is one step of the loop long and asks nobody: news leaves through `on_start` and `on_end`.
At most `concurrency` requests run; the rest wait in the order they came, low priority last.
"""

import heapq
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Final
from uuid import uuid4

from app.simulator.clock import Clock
from app.simulator.outcomes import request_error, start_timeout
from app.simulator.requests import Request, Result, State

MOST_ATTEMPTS: Final = 10
# Past this many in line, places are counted a few times a second instead of for every question.
EXACT_PLACES: Final = 500


class Queue:
    """Every request of the account, from acceptance to ending."""

    def __init__(self, clock: Clock, *, concurrency: int, queue_s: float, run_s: float) -> None:
        self._clock = clock
        self.concurrency = concurrency
        self._queue_s = queue_s
        self._run_s = run_s
        self.requests: dict[str, Request] = {}
        self.by_endpoint: dict[str, list[Request]] = defaultdict(list)
        self._waiting: dict[str, Request] = {}
        self._ready: list[tuple[bool, int, str]] = []
        self._running: set[str] = set()
        self._places: dict[str, int] = {}
        self._line_moved = True
        self._counted_at = 0.0
        self._starting = False
        self.on_start: Callable[[Request], Result | None] = lambda _: None
        """A request got a runner; an answer ends it there and then."""
        self.on_done: Callable[[Request], None] = lambda _: None
        """A running request's time is over; whoever hears it calls `end`."""
        self.on_stop: Callable[[Request], Result] = lambda _: request_error("client_cancelled")
        """A running request heeds a cancel; the answer is how it ends, and what that costs."""
        self.on_end: Callable[[Request], None] = lambda _: None

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def add(self, request: Request) -> None:
        """Take *request* in."""
        self.remember(request)
        request.gateway_request_id = request.gateway_request_id or request.request_id
        self._wait(request)
        if request.start_by is not None:
            self._clock.at(request.start_by, lambda: self._start_overdue(request))

    def remember(self, request: Request) -> None:
        """Know *request*, as read from the book, without doing anything about it."""
        request.number = len(self.requests)
        self.requests[request.request_id] = request
        self.by_endpoint[request.endpoint].append(request)

    def resume(self, request: Request) -> None:
        """Queue *request* again after a restart of the simulator, as fal does when a runner went away."""
        if request.state is State.IN_PROGRESS:
            self._new_attempt(request)
        request.state = State.IN_QUEUE
        self._wait(request)
        if request.start_by is not None:
            self._clock.at(request.start_by, lambda: self._start_overdue(request))

    def place(self, request: Request) -> int:
        """How many are ahead of *request*."""
        exact = len(self._waiting) <= EXACT_PLACES
        if self._line_moved and (exact or time.monotonic() - self._counted_at > 0.25):
            line = sorted(self._waiting.values(), key=lambda one: (one.low_priority, one.number))
            self._places = {one.request_id: place for place, one in enumerate(line)}
            self._line_moved, self._counted_at = False, time.monotonic()
        # Who isn't counted yet came last.
        return self._places.get(request.request_id, max(len(self._waiting) - 1, 0))

    def cancel(self, request: Request) -> bool:
        """Ask for the end of *request*: True if it was still waiting and is gone."""
        request.cancel_asked = True
        if request.state is State.IN_QUEUE:
            self.end(request, request_error("client_cancelled"))
            return True
        if request.script.cancel != "finish":
            turn = request.turn
            self._clock.after(0, lambda: self._stop(request, turn))
        return False

    def end(self, request: Request, result: Result) -> None:
        """*request* ends with *result*."""
        self._running.discard(request.request_id)
        self._waiting.pop(request.request_id, None)
        request.state, request.result, request.ended_at = State.COMPLETED, result, self._clock.now()
        self._moved(request)
        self.on_end(request)
        self.start_ready()

    def start_ready(self) -> None:
        """Give runners to those whose turn it is."""
        if self._starting:
            # A start that fails at once ends here again; the loop below goes on with the next.
            return
        self._starting = True
        try:
            while self._ready and len(self._running) < self.concurrency:
                request = self.requests[heapq.heappop(self._ready)[2]]
                if request.state is State.IN_QUEUE:
                    self._start(request)
        finally:
            self._starting = False

    def _moved(self, request: Request) -> None:
        request.moved()
        self._line_moved = True

    def _wait(self, request: Request) -> None:
        self._waiting[request.request_id] = request
        self._moved(request)
        if request.script.stuck == "queue":
            return
        wait_s = self._queue_s if request.script.queue_s is None else request.script.queue_s
        turn = request.turn
        self._clock.after(0 if request.direct else wait_s, lambda: self._wait_over(request, turn))

    def _wait_over(self, request: Request, turn: int) -> None:
        if request.turn == turn:
            heapq.heappush(self._ready, (request.low_priority, request.number, request.request_id))
            self.start_ready()

    def _start(self, request: Request) -> None:
        del self._waiting[request.request_id]
        self._running.add(request.request_id)
        request.state, request.started_at = State.IN_PROGRESS, self._clock.now()
        self._moved(request)
        if (result := self.on_start(request)) is not None:
            self.end(request, result)
            return
        if request.script.stuck == "run":
            return
        run_s = self._run_s if request.script.run_s is None else request.script.run_s
        turn = request.turn
        self._clock.after(run_s, lambda: self._run_over(request, turn))

    def _run_over(self, request: Request, turn: int) -> None:
        if request.turn != turn:
            return
        if request.attempts <= request.script.retries:
            self._step_back(request)
        else:
            self.on_done(request)

    def _step_back(self, request: Request) -> None:
        """The runner was lost: back into the queue under the same id, as long as fal's patience lasts."""
        if request.no_retry or request.attempts >= MOST_ATTEMPTS:
            self.end(request, request_error("runner_disconnected"))
            return
        self._running.discard(request.request_id)
        if request.start_by is not None and self._clock.now() >= request.start_by:
            self.end(request, start_timeout())
            return
        self._new_attempt(request)
        request.state = State.IN_QUEUE
        self._wait(request)
        self.start_ready()

    def _new_attempt(self, request: Request) -> None:
        request.attempts += 1
        request.gateway_request_id = str(uuid4())

    def _start_overdue(self, request: Request) -> None:
        if request.state is State.IN_QUEUE:
            self.end(request, start_timeout())

    def _stop(self, request: Request, turn: int) -> None:
        if request.turn == turn:
            self.end(request, self.on_stop(request))
