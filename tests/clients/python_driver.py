"""
Exchanges of fal's own Python client; what each returned or raised comes back as a line of JSON.

    echo '["p3", {}]' | FAL_KEY=… python python_driver.py

A program of its own, since only a process's environment leads the client elsewhere. Each exchange has a new client
with connections of its own, and none of them knows that it isn't talking to fal.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from typing import Any, Final

from fal_client.client import (
    AsyncClient,
    AsyncRequestHandle,
    FalClientHTTPError,
    StorageACL,
    StorageACLRule,
    StorageSettings,
    SyncClient,
    SyncRequestHandle,
)

O3: Final = "fal-ai/kling-video/o3/4k/text-to-video"
ORDER: Final = {"prompt": "hi", "duration": "5"}


def p1(fal: SyncClient) -> Any:
    return fal.submit(
        O3,
        ORDER,
        hint="h1",
        webhook_url="https://me.example/hook?job=1&k=v",
        priority="low",
        headers={"X-Fal-No-Retry": "1", "X-Fal-Store-IO": "0"},
        start_timeout=30,
    )


def p2(fal: SyncClient) -> Any:
    return fal.submit(O3, ORDER)


def p3(fal: SyncClient) -> Any:
    return fal.submit(O3, ORDER).status()


def p4(fal: SyncClient) -> Any:
    return fal.submit(O3, ORDER).status(with_logs=True)


def p5(fal: SyncClient) -> Any:
    return fal.submit(O3, ORDER).get()


def p6(fal: SyncClient) -> Any:
    return fal.submit(O3, ORDER).cancel()


def p7(fal: SyncClient) -> Any:
    handle = fal.submit(O3, ORDER)
    handle.get()
    return handle.cancel()


def p8(fal: SyncClient, request_id: str) -> Any:
    return fal.status(O3, request_id)


def p9(fal: SyncClient) -> Any:
    updates: list[Any] = []
    output = fal.subscribe(
        O3, ORDER, with_logs=True, on_queue_update=updates.append, priority="normal", client_timeout=20
    )
    return {"output": output, "updates": [plain(update) for update in updates]}


def p10(fal: SyncClient) -> Any:
    return fal.run(O3, ORDER, hint="h1", start_timeout=5)


def p11(fal: SyncClient) -> Any:
    return list(fal.stream(O3, ORDER))


def p12(fal: SyncClient) -> Any:
    handle = fal.submit("workflows/me/flow/sub", ORDER)
    return fal.status("workflows/me/flow/sub", handle.request_id)


def p13(fal: SyncClient) -> Any:
    lifecycle = StorageSettings(expires_in="1d", initial_acl=StorageACL("hide", [StorageACLRule("user-42", "allow")]))
    return fal.upload(b"hello", "text/plain", "a.txt", lifecycle=lifecycle)


def p13_bare(fal: SyncClient) -> Any:
    return fal.upload(b"hello", "text/plain", "a.txt")


def p14(fal: SyncClient) -> Any:
    return fal.upload(b"hello", "text/plain", "a.txt", repository="fal")


def multipart(fal: SyncClient, size: int) -> Any:
    return fal.upload(bytes(size), "video/mp4", "a.mp4")


def submit(fal: SyncClient, prompt: str) -> Any:
    return fal.submit(O3, {"prompt": prompt})


def submit_async(_: SyncClient, prompt: str) -> Any:
    return asyncio.run(AsyncClient().submit(O3, {"prompt": prompt}))


def run(fal: SyncClient, prompt: str) -> Any:
    return fal.run(O3, {"prompt": prompt})


def result(fal: SyncClient, request_id: str) -> Any:
    return fal.result(O3, request_id)


def plain(value: Any) -> Any:
    """*value* as JSON can say it, its type named beside its fields."""
    if isinstance(value, SyncRequestHandle | AsyncRequestHandle):
        fields = ("request_id", "response_url", "status_url", "cancel_url")
        return {"type": type(value).__name__} | {name: getattr(value, name) for name in fields}
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__} | asdict(value)
    return value


def answer(exchange: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """What came of *exchange*."""
    try:
        return {"returned": plain(exchange(SyncClient(), **arguments))}
    except FalClientHTTPError as error:
        timed_out = error.error_type == "request_timeout"
        facts = {"status": error.status_code, "reasons": error.message, "timed_out": timed_out}
        return {"raised": {"type": type(error).__name__} | facts}


def main() -> None:
    for line in sys.stdin:
        name, arguments = json.loads(line)
        sys.stdout.write(json.dumps(answer(globals()[name], arguments)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
