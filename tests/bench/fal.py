"""
A fal that costs next to nothing: `python -m tests.bench.fal PORT [seconds until each webhook]`.

The simulator is the one to be right with; this one only has to be fast. It takes every submit, notes when it had
it, signs, and, if told to, reports each as done. `GET /taken` lists request id, webhook URL and time (monotonic).
"""

import asyncio
import json
import sys
import time
from urllib.parse import parse_qs, urlsplit

from tests.bench.load import Connection
from tests.signing import JWKS, signed

TAKEN: list[tuple[str, str, float]] = []
OUTPUT = {"video": {"url": "http://127.0.0.1:9/output.mp4", "content_type": "video/mp4", "file_name": "output.mp4"}}
# Ids of an earlier life aren't given again.
LIFE = f"req-{time.time_ns():x}"
IDLE: dict[int, list[Connection]] = {}


class Server(asyncio.Protocol):
    """Answers submits, and what is asked about them."""

    def __init__(self, webhook_s: float | None) -> None:
        self._webhook_s = webhook_s
        self._got = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._got += data
        while (end := self._got.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._got[:end]).decode("latin-1")
            lengths = [int(line[15:]) for line in head.lower().split("\r\n") if line.startswith("content-length:")]
            taken = end + 4 + sum(lengths)
            if len(self._got) < taken:
                return
            del self._got[:taken]
            method, target, _ = head.split(" ", 2)
            body = json.dumps(self._answer(method, urlsplit(target)))
            self._transport.write(
                f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
            )

    def _answer(self, method: str, target: object) -> object:
        path, query = target.path, target.query  # type: ignore[attr-defined]
        if path == "/jwks":
            return JWKS
        if path == "/taken":
            return TAKEN[int(parse_qs(query).get("since", ["0"])[0]) :]
        if method != "POST":
            return {"status": "IN_QUEUE", "queue_position": 0}
        request_id = f"{LIFE}-{len(TAKEN):09}"
        webhook = parse_qs(query).get("fal_webhook", [""])[0]
        TAKEN.append((request_id, webhook, time.monotonic()))
        if self._webhook_s is not None:
            asyncio.get_running_loop().call_later(self._webhook_s, report, request_id, webhook)
        base = f"http://127.0.0.1/queue/requests/{request_id}"
        urls = {"status_url": f"{base}/status", "response_url": base, "cancel_url": f"{base}/cancel"}
        return {"request_id": request_id, "status": "IN_QUEUE", "queue_position": 0, **urls}


def webhook_request(request_id: str, url: str) -> list[str]:
    """The raw request, signed now, that reports *request_id* as done: its head and its body."""
    report = {"request_id": request_id, "gateway_request_id": request_id, "status": "OK", "payload": OUTPUT}
    raw, headers = signed(report, request_id=request_id)
    lines = [f"POST {urlsplit(url).path} HTTP/1.1", "host: callsheet", f"content-length: {len(raw)}"]
    return ["\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items())]), raw.decode()]


def report(request_id: str, url: str) -> None:
    """Send the webhook, once."""
    TASKS.add(task := asyncio.create_task(_report(request_id, url)))
    task.add_done_callback(TASKS.discard)


TASKS: set[asyncio.Task[None]] = set()


async def _report(request_id: str, url: str) -> None:
    port = urlsplit(url).port or 80
    idle = IDLE.setdefault(port, [])
    connection = idle.pop() if idle else None
    if connection is None or not connection.is_open:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    head, body = webhook_request(request_id, url)
    await connection.ask(head.encode() + b"\r\n\r\n" + body.encode())
    idle.append(connection)


async def main(port: int, webhook_s: float | None) -> None:
    """Serve until killed, for ten minutes at most."""
    server = await asyncio.get_running_loop().create_server(lambda: Server(webhook_s), "127.0.0.1", port)
    async with server:
        await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else None))
