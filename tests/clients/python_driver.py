"""
One exchange of fal's own Python client; what it returned or raised goes to stdout as JSON.

    python python_driver.py p3 '{}'

A program of its own, since the client reads its environment when it is imported. It doesn't know that it isn't
talking to fal.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from typing import Any, Final

import fal_client
from fal_client.client import StorageACL, StorageACLRule, StorageSettings, SyncRequestHandle

O3: Final = "fal-ai/kling-video/o3/4k/text-to-video"
ORDER: Final = {"prompt": "hi", "duration": "5"}


def p1() -> Any:
    return fal_client.submit(
        O3,
        ORDER,
        hint="h1",
        webhook_url="https://me.example/hook?job=1&k=v",
        priority="low",
        headers={"X-Fal-No-Retry": "1", "X-Fal-Store-IO": "0"},
        start_timeout=30,
    )


def p2() -> Any:
    return fal_client.submit(O3, ORDER)


def p3() -> Any:
    return fal_client.submit(O3, ORDER).status()


def p4() -> Any:
    return fal_client.submit(O3, ORDER).status(with_logs=True)


def p5() -> Any:
    return fal_client.submit(O3, ORDER).get()


def p6() -> Any:
    return fal_client.submit(O3, ORDER).cancel()


def p7() -> Any:
    handle = fal_client.submit(O3, ORDER)
    handle.get()
    return handle.cancel()


def p8(request_id: str) -> Any:
    return fal_client.status(O3, request_id)


def p9() -> Any:
    updates: list[Any] = []
    output = fal_client.subscribe(
        O3, ORDER, with_logs=True, on_queue_update=updates.append, priority="normal", client_timeout=20
    )
    return {"output": output, "updates": [plain(update) for update in updates]}


def p10() -> Any:
    return fal_client.run(O3, ORDER, hint="h1", start_timeout=5)


def p11() -> Any:
    return list(fal_client.stream(O3, ORDER))


def p12() -> Any:
    handle = fal_client.submit("workflows/me/flow/sub", ORDER)
    return fal_client.status("workflows/me/flow/sub", handle.request_id)


def p13() -> Any:
    lifecycle = StorageSettings(expires_in="1d", initial_acl=StorageACL("hide", [StorageACLRule("user-42", "allow")]))
    return fal_client.upload(b"hello", "text/plain", "a.txt", lifecycle=lifecycle)


def p13_bare() -> Any:
    return fal_client.upload(b"hello", "text/plain", "a.txt")


def p14() -> Any:
    return fal_client.upload(b"hello", "text/plain", "a.txt", repository="fal")


def multipart(size: int) -> Any:
    return fal_client.upload(bytes(size), "video/mp4", "a.mp4")


def submit(prompt: str) -> Any:
    return fal_client.submit(O3, {"prompt": prompt})


def submit_async(prompt: str) -> Any:
    return asyncio.run(fal_client.submit_async(O3, {"prompt": prompt}))


def run(prompt: str) -> Any:
    return fal_client.run(O3, {"prompt": prompt})


def result(request_id: str) -> Any:
    return fal_client.result(O3, request_id)


def plain(value: Any) -> Any:
    """*value* as JSON can say it, its type named beside its fields."""
    if isinstance(value, SyncRequestHandle | fal_client.AsyncRequestHandle):
        fields = ("request_id", "response_url", "status_url", "cancel_url")
        return {"type": type(value).__name__} | {name: getattr(value, name) for name in fields}
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__} | asdict(value)
    return value


def main(exchange: Callable[..., Any], arguments: dict[str, Any]) -> None:
    try:
        said = {"returned": plain(exchange(**arguments))}
    except fal_client.FalClientHTTPError as error:
        timed_out = error.error_type == "request_timeout"
        facts = {"status": error.status_code, "reasons": error.message, "timed_out": timed_out}
        said = {"raised": {"type": type(error).__name__} | facts}
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main(globals()[sys.argv[1]], json.loads(sys.argv[2]))
