"""
Requests over raw sockets, as many as asked for and not one more: `python -m tests.bench.load <order.json`.

A process of its own, so that it doesn't share a loop with what it measures. An answer other than the expected
one is a failure, as is one that doesn't come. The answers under way when time is up are waited for, so that
what was accepted can be counted in the database afterwards.
"""

import asyncio
import json
import re
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from tests.bench.figure import percentile

ID = re.compile(rb'"id":\s*"([0-9a-f-]{36})"')


@dataclass(frozen=True, slots=True)
class Order:
    """What to send, and when to stop."""

    port: int
    requests: list[list[str]]
    """Sent in turn, over and over: the raw text of each, and its body."""
    expect: int
    contains: str = ""
    connections: int = 64
    seconds: float = 1.0
    most: int = 1_000_000
    rate: float | None = None
    """Requests a second whatever the answers do, each timed from when it was due; None: as answers allow."""
    patience_s: float = 30.0


@dataclass(slots=True)
class Outcome:
    """What came of it; *seconds* go to the last answer, *latencies* are in seconds."""

    right: int = 0
    wrong: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    first_wrong: str = ""


class Connection(asyncio.Protocol):
    """One request after the other."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._got = bytearray()
        self._waiter: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._got += data
        if self._waiter is not None and not self._waiter.done() and (answer := _answer(self._got)):
            status, body, taken = answer
            del self._got[:taken]
            self._waiter.set_result((status, body))

    def connection_lost(self, error: Exception | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error or ConnectionResetError("closed"))

    @property
    def is_open(self) -> bool:
        """Whether the other side hasn't ended it."""
        return not self._transport.is_closing()

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """The answer's status and body."""
        if not self.is_open:
            raise ConnectionResetError("closed")
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiter

    def close(self) -> None:
        self._transport.close()


def _answer(got: bytearray) -> tuple[int, bytes, int] | None:
    """Status, body and length of the first answer in *got*, or None if it isn't whole. Raises ValueError."""
    end = got.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(got[:end]).lower()
    status = int(head[9:12])
    at = head.find(b"\r\ncontent-length:")
    if at < 0 and status not in {204, 304}:
        raise ValueError("an answer without its length")
    length = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
    taken = end + 4 + length
    return (status, bytes(got[end + 4 : taken]), taken) if len(got) >= taken else None


async def run(order: Order) -> Outcome:
    """Do as ordered."""
    outcome = Outcome()
    loop = asyncio.get_running_loop()
    connections = [
        (await loop.create_connection(Connection, "127.0.0.1", order.port))[1] for _ in range(order.connections)
    ]
    texts = [head.encode("latin-1") + b"\r\n\r\n" + body.encode() for head, body in order.requests]
    start = time.perf_counter()
    due = _due(order, start)
    try:
        async with asyncio.timeout(order.seconds + order.patience_s):
            await asyncio.gather(*(_drive(each, order, texts, due, outcome) for each in connections))
    except TimeoutError:
        outcome.first_wrong = outcome.first_wrong or "unanswered when patience ended"
        outcome.wrong += 1
    outcome.seconds = time.perf_counter() - start
    for each in connections:
        each.close()
    return outcome


def _due(order: Order, start: float) -> "deque[float] | list[None]":
    if order.rate is None:
        return [None] * order.most
    return deque(start + n / order.rate for n in range(min(order.most, int(order.rate * order.seconds))))


async def _drive(connection: Connection, order: Order, texts: list[bytes], due: Any, outcome: Outcome) -> None:
    end = time.perf_counter() + order.seconds
    while due and time.perf_counter() < end:
        since = due.pop() if order.rate is None else due.popleft()
        text = texts[len(due) % len(texts)]
        if since is not None:
            await asyncio.sleep(max(0.0, since - time.perf_counter()))
        since = since or time.perf_counter()
        try:
            status, body = await connection.ask(text)
        except (OSError, ValueError) as error:
            outcome.wrong += 1
            outcome.first_wrong = outcome.first_wrong or type(error).__name__
            return
        outcome.latencies.append(time.perf_counter() - since)
        if status != order.expect or order.contains.encode() not in body:
            outcome.wrong += 1
            outcome.first_wrong = outcome.first_wrong or f"{status} {body[:200]!r}"
            continue
        outcome.right += 1
        if found := ID.search(body):
            outcome.ids.append(found[1].decode())


def main() -> None:
    """Read an order from stdin, write what came of it to stdout."""
    outcome = asyncio.run(run(Order(**json.load(sys.stdin))))
    json.dump(
        {
            "right": outcome.right,
            "wrong": outcome.wrong,
            "first_wrong": outcome.first_wrong,
            "per_s": outcome.right / outcome.seconds,
            "p50_ms": percentile(outcome.latencies, 50) * 1000,
            "p99_ms": percentile(outcome.latencies, 99) * 1000,
            "cpu_s": time.process_time(),
            "ids": outcome.ids,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
