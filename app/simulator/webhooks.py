"""
Webhooks: what they say, how they're signed, and how long fal keeps trying.

A true delivery is repeated with back-off until a 2xx; a redirect or a private target ends it for good, and so
does the expiry of the result. A false one (forged, old, …) is posted once.
"""

import asyncio
import ipaddress
import json
import socket
import time
from collections.abc import Callable
from typing import Any, Final
from uuid import uuid4

import httpx

from app.simulator import signing
from app.simulator.clock import Clock
from app.simulator.config import SimulatorConfig
from app.simulator.requests import Delivery, Request
from app.simulator.signing import Keys

MOST_AT_ONCE: Final = 256
STALE_S: Final = 600


def content(request: Request) -> bytes:
    """What the webhook about *request* says: Python-style JSON with its keys in alphabetical order."""
    result = request.result
    assert result is not None, "only an ended request is told of"  # noqa: S101
    succeeded = result.code < 400
    said = {
        "error": None if succeeded else f"Invalid status code: {result.code}",
        "gateway_request_id": request.gateway_request_id,
        "payload": None if result.payload_error else result.output(),
        "request_id": request.request_id,
        "status": "OK" if succeeded else "ERROR",
    }
    if result.payload_error:
        said["payload_error"] = result.payload_error
    return json.dumps(said, sort_keys=True).encode()


class Webhooks:
    """Tells callers of endings."""

    def __init__(
        self,
        config: SimulatorConfig,
        clock: Clock,
        keys: Keys,
        transport: httpx.AsyncBaseTransport,
        on_attempt: Callable[[Request], None],
    ) -> None:
        self._config = config
        self._clock = clock
        self._keys = keys
        self._transport = transport
        self._on_attempt = on_attempt
        self._places = asyncio.Semaphore(MOST_AT_ONCE)

    async def tell(self, request: Request) -> None:
        """Send the webhooks that are due about *request*, all at once, until each is done with."""
        script = request.script
        await self._wait(script.webhook_s)
        if request.webhook_url is not None:
            async with asyncio.TaskGroup() as group:
                for form in script.webhook:
                    group.create_task(self._deliver(request, form))
        request.told = True
        self._on_attempt(request)

    async def send(self, request: Request, form: str, *, attempt: int = 0, url: str | None = None) -> Delivery:
        """Post one webhook in the given *form*, and note how it went."""
        delivery = Delivery(form, self._clock.now())
        target = url or request.webhook_url or ""
        async with self._places:
            try:
                if not self._config.allow_private_webhooks:
                    await refuse_private(target)
                async with asyncio.timeout(self._config.webhook_timeout_s[min(attempt, 1)]):
                    delivery.code = await self._post(target, *self._letter(request, form))
            except TimeoutError:
                delivery.error = "timeout"
            except PrivateTarget as error:
                delivery.error = str(error)
            # A target may be an app in this very process (ASGITransport), which raises anything it likes.
            except Exception as error:  # noqa: BLE001
                delivery.error = f"{type(error).__name__}: {error}"
        request.deliveries.append(delivery)
        self._on_attempt(request)
        return delivery

    async def _deliver(self, request: Request, form: str) -> None:
        for attempt, wait_s in enumerate((*self._config.webhook_retry_s, None)):
            delivery = await self.send(request, form, attempt=attempt)
            if form != "ok" or wait_s is None or not _again(delivery) or self._expired(request):
                return
            await self._wait(wait_s)

    def _expired(self, request: Request) -> bool:
        return self._clock.now() - (request.ended_at or 0.0) >= self._config.result_kept_s

    async def _wait(self, wait_s: float) -> None:
        if wait_s > 0:
            over = asyncio.Event()
            self._clock.after(wait_s, over.set)
            await over.wait()

    def _letter(self, request: Request, form: str) -> tuple[bytes, dict[str, str]]:
        body = content(request)
        key = self._keys.stranger if form == "unknown_key" else self._keys.current
        # The true time, whatever the simulator's clock says: it is the receiver's clock that checks it.
        now = int(time.time()) + {"old": -STALE_S, "future": STALE_S}.get(form, 0)
        named = str(uuid4()) if form == "foreign" else request.request_id
        user = self._config.user_id
        headers = signing.headers(key, request_id=named, user_id=user, timestamp=str(now), body=body)
        if form == "forged":
            headers["X-Fal-Webhook-Signature"] = "00" * 64
        elif form == "unsigned":
            headers = {}
        elif form == "tampered":
            body = body.replace(b'"status": "OK"', b'"status": "ok"').replace(b'"ERROR"', b'"OK"')
        return body, headers

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        sent = {"Content-Type": "application/json", "User-Agent": "fal-webhook (simulator)", **headers}
        request = httpx.Request("POST", url, content=body, headers=sent)
        answer = await self._transport.handle_async_request(request)
        await answer.aread()
        return answer.status_code


def _again(delivery: Delivery) -> bool:
    """Whether fal tries once more after this."""
    if delivery.code is None:
        return delivery.error != PrivateTarget.__doc__
    return not 200 <= delivery.code < 400


class PrivateTarget(Exception):
    """fal doesn't post to private addresses"""


async def refuse_private(url: str) -> None:
    """Raise PrivateTarget unless *url* leads to the public internet."""
    found: list[Any] = []
    try:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(httpx.URL(url).host, None, type=socket.SOCK_STREAM)
    except (OSError, httpx.InvalidURL):
        pass
    if not found or not all(ipaddress.ip_address(one[4][0]).is_global for one in found):
        raise PrivateTarget(PrivateTarget.__doc__)
