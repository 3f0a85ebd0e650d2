"""
fal's queue: submit, status, result, cancel.

Not fal's own client: that one sends a submit again after a dropped connection, and fal has no
idempotency key, so the customer would pay twice.
"""

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import quote, urlsplit

import httpx

from app.fal import messages
from app.fal.messages import Accepted, CancelAnswer, Lost, Progress, Refused, Report, accepted, job_error
from app.http import once
from app.retry_after import retry_after_s

# Raised before a single byte of the request was sent, so fal can't have it.
NOTHING_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.LocalProtocolError,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
)
# fal's queue answers these instead of taking the request. Any other answer but 200 proves nothing.
NOT_TAKEN: Final = frozenset({400, 401, 402, 403, 404, 405, 413, 415, 422, 429})
# fal says: User is locked. Reason: Exhausted balance. Top up your balance at …
LOCKED: Final = re.compile(r"\b(user|account) is locked\b|\bexhausted balance\b", re.IGNORECASE)
FINAL: Final = frozenset({400, 404, 405, 413, 415, 422})


class Unanswered(Exception):
    """fal could not be asked, or gave no usable answer; nothing is known that wasn't before."""


class FalClient:
    """One fal account's view of the queue; *submit_headers* go along with each submit."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        queue_url: str,
        key: str,
        timeout_s: float = 30.0,
        submit_headers: Mapping[str, str] | None = None,
    ) -> None:
        self._http = http
        self._timeout_s = timeout_s
        self._queue_url = queue_url
        self._auth = {"Authorization": f"Key {key}"}
        self._submit_headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            **(submit_headers or {}),
        }

    async def submit(
        self,
        endpoint: str,
        model_input: dict[str, Any],
        *,
        webhook_url: str | None,
        priority: str = "normal",
        start_timeout_s: float | None = None,
    ) -> Accepted | Refused | Lost:
        """Hand a request to fal, once. The caller must have committed the intent before."""
        headers = {**self._auth, **self._submit_headers, "X-Fal-Queue-Priority": priority}
        if start_timeout_s is not None:
            # Both names: the newer wins where it is known, the older is what fal's own clients send.
            seconds = f"{start_timeout_s:.1f}"
            headers |= {"X-Fal-Request-Start-Timeout": seconds, "X-Fal-Request-Timeout": seconds}
        query = f"?fal_webhook={quote(webhook_url, safe='')}" if webhook_url else ""
        request = httpx.Request(
            "POST",
            f"{self._queue_url}/{quote(endpoint)}{query}",
            content=json.dumps(model_input, ensure_ascii=False, separators=(",", ":")).encode(),
            headers=headers,
        )
        try:
            # httpx bounds each step of a call; an answer that trickles needs a bound on the whole.
            async with asyncio.timeout(self._timeout_s):
                answer = await once(self._http, request)
        except (httpx.HTTPError, TimeoutError) as error:
            if not isinstance(error, NOTHING_SENT) and request.extensions.get("sent", True):
                return Lost(type(error).__name__)
            reason = job_error(None, None, text=f"fal can't be reached ({type(error).__name__}).", retryable=True)
            return Refused(None, "fal", reason)
        if answer.status_code == 200:
            return accepted(messages.read(answer.content)) or Lost("unreadable answer")
        if answer.status_code not in NOT_TAKEN:
            return Lost(f"status code {answer.status_code}")
        return _refused(answer)

    async def status(self, endpoint: str, request_id: str, url: str | None) -> Progress | None:
        """Where a request stands, or None if it has ended. Raises Unanswered."""
        answer = await self._get(self._url(url, endpoint, request_id, "/status"))
        body = messages.read(answer.content)
        match body:
            case {"status": "IN_QUEUE"}:
                place = body.get("queue_position")
                return Progress(running=False, queue_position=place if isinstance(place, int) else None)
            case {"status": "IN_PROGRESS"}:
                return Progress(running=True)
            case {"status": "COMPLETED"}:
                return None
        raise Unanswered(f"status code {answer.status_code}")

    async def result(self, endpoint: str, request_id: str, url: str | None) -> Report:
        """
        The verdict on a request that has ended. Raises Unanswered.

        Ask only after `status` said so: fal answers a result read too early with a 400 that looks
        like the model's own.
        """
        answer = await self._get(self._url(url, endpoint, request_id, ""))
        body = messages.read(answer.content)
        too_early = answer.status_code == 400 and body == {"detail": "Request is still in progress"}
        # About our key and our haste, not about the request.
        ours = answer.status_code in {401, 403, 429}
        report = messages.result(answer.status_code, body, answer.headers, request_id=request_id)
        if too_early or ours or report is None:
            raise Unanswered(f"status code {answer.status_code}")
        return report

    async def cancel(self, endpoint: str, request_id: str, url: str | None) -> CancelAnswer:
        """
        Ask fal to end a request early; what becomes of it only its result tells. Raises Unanswered.

        Asking twice is safe.
        """
        asked_at = self._url(url, endpoint, request_id, "/cancel")
        answer = await ask(self._http, "PUT", asked_at, headers=self._auth, timeout_s=self._timeout_s)
        said = messages.cancel_answer(answer.status_code, messages.read(answer.content))
        if said is None:
            raise Unanswered(f"status code {answer.status_code}")
        return said

    async def _get(self, url: str) -> httpx.Response:
        return await ask(self._http, "GET", url, headers=self._auth, timeout_s=self._timeout_s)

    def _url(self, given: str | None, endpoint: str, request_id: str, suffix: str) -> str:
        """fal's own URL if it leads to fal; the key must not follow a URL to anywhere else."""
        ours = urlsplit(self._queue_url)
        try:
            theirs = urlsplit(given or "")
        except ValueError:
            given, theirs = None, urlsplit("")
        if given and (theirs.scheme, theirs.netloc) == (ours.scheme, ours.netloc):
            return given
        if theirs.scheme == "https" and (theirs.hostname or "").endswith((".fal.run", ".falrun.com")):
            return str(given)
        namespaced = endpoint.startswith(("workflows/", "comfy/"))
        app = "/".join(endpoint.split("/")[: 3 if namespaced else 2])
        return f"{self._queue_url}/{quote(app)}/requests/{quote(request_id, safe='')}{suffix}"


async def ask(
    http: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    timeout_s: float,
    params: Mapping[str, str] | None = None,
    content: bytes | None = None,
) -> httpx.Response:
    """The answer to a question that may be asked again, whole within *timeout_s*. Raises Unanswered."""
    try:
        async with asyncio.timeout(timeout_s):
            return await http.request(method, url, headers=headers, params=params, content=content)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        raise Unanswered(type(error).__name__) from error


def _refused(answer: httpx.Response) -> Refused:
    code, body = answer.status_code, messages.read(answer.content)
    return Refused(
        code,
        _whom(code, body),
        job_error(code, body),
        final=code in FINAL,
        retry_after_s=_retry_after_s(answer.headers),
    )


def _whom(code: int, body: Any) -> Literal["account_locked", "key_refused", "fal"]:
    """Whom a refusal is about. A wrong key and a lock are the operator's to mend, and no fault of the job."""
    if code == 401:
        return "key_refused"
    said = body.get("detail") if isinstance(body, dict) else None
    locked = code == 403 and isinstance(said, str) and LOCKED.search(said) is not None
    # Another 403, such as no access to one model, is about that request alone.
    return "account_locked" if code == 402 or locked else "fal"


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    asked_s = retry_after_s(headers.get("retry-after", ""))
    return None if asked_s is None else min(asked_s, 3600.0)
