"""api.fal.ai/v1: prices, what requests cost, and which requests there were."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from itertools import takewhile
from typing import Any, Final, TypeVar

from starlette.requests import Request as Call
from starlette.responses import Response

from app.simulator.clock import iso
from app.simulator.requests import Request
from app.simulator.routes.answers import answer
from app.simulator.simulator import Simulator

DAY_S: Final = 86_400.0
# Set from the documented /meta answer: true webhooks of fal come from such blocks, ours come from here.
OUR_RANGES: Final = ["127.0.0.1/32"]
One = TypeVar("One")


class Refusal(Exception):
    """The Platform API's error: a code, a type and a message."""

    def __init__(self, code: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.response = answer(code, {"error": {"type": kind, "message": message}})


async def serve(simulator: Simulator, call: Call, path: str) -> Response:
    """Whatever came to `/v1/…`."""
    place = path.removeprefix("/v1").strip("/")
    try:
        if call.method == "DELETE" and place.startswith("models/requests/") and place.endswith("/payloads"):
            _admin(simulator, call)
            return _delete_payloads(simulator, place.split("/")[2])
        handler = ROUTES.get((call.method, place))
        if handler is None:
            raise Refusal(404, "not_found", f"No such endpoint: {call.method} /v1/{place}")  # noqa: TRY301
        return await handler(simulator, call)
    except Refusal as refusal:
        return refusal.response


def _key(simulator: Simulator, call: Call) -> None:
    if not simulator.account.admits(call.headers.get("authorization")):
        raise Refusal(401, "authorization_error", "Authentication is required")


def _admin(simulator: Simulator, call: Call) -> None:
    if not simulator.account.admits_admin(call.headers.get("authorization")):
        raise Refusal(401, "authorization_error", "An API key of ADMIN scope is required")


# --- Parameters ---------------------------------------------------------------------------------------------


def _many(call: Call, name: str, *, required: bool = False) -> list[str]:
    """A parameter that may be repeated, or hold a list with commas; at most 50."""
    values = [one for given in call.query_params.getlist(name) for one in given.split(",") if one]
    if len(values) > 50 or (required and not values):
        raise Refusal(422, "validation_error", f"{name} takes 1 to 50 values")
    return values


def _time(call: Call, name: str, default: float) -> float:
    given = call.query_params.get(name)
    if not given:
        return default
    try:
        # A plus sign that nobody escaped arrives as a space.
        when = datetime.fromisoformat(given.replace(" ", "+"))
    except ValueError:
        raise Refusal(422, "validation_error", f"{name} must be an ISO 8601 time") from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _page(
    call: Call, key: str, found: Sequence[One], show: Callable[[One], dict[str, Any]], *, largest: int
) -> Response:
    limit, cursor = call.query_params.get("limit", "50"), call.query_params.get("cursor") or "0"
    if not (limit.isdecimal() and cursor.isdecimal() and 1 <= int(limit) <= largest):
        raise Refusal(422, "validation_error", f"limit is 1 to {largest}, cursor comes from an earlier page")
    end = int(cursor) + int(limit)
    more = end < len(found)
    shown = [show(one) for one in found[int(cursor) : end]]
    said = {key: shown, "next_cursor": str(end) if more else None, "has_more": more}
    return answer(200, said)


def _number(value: Decimal) -> float:
    """Money as fal's JSON has it: a number."""
    return float(value)


# --- Prices -------------------------------------------------------------------------------------------------


async def _models(simulator: Simulator, call: Call) -> Response:
    wanted, text = _many(call, "endpoint_id"), call.query_params.get("q", "").lower()
    names = [name for name in sorted(simulator.config.prices) if text in name and (not wanted or name in wanted)]
    return _page(call, "models", names, _model, largest=100)


def _model(endpoint: str) -> dict[str, Any]:
    title = endpoint.partition("/")[2].replace("/", " ").replace("-", " ").title()
    about = {"display_name": title, "category": endpoint.rpartition("/")[2], "status": "active", "tags": []}
    said = {"description": "Simulated", "model_url": f"https://fal.run/{endpoint}", "kind": "inference"}
    return {"endpoint_id": endpoint, "metadata": about | said}


async def _pricing(simulator: Simulator, call: Call) -> Response:
    _key(simulator, call)
    wanted = _many(call, "endpoint_id", required=True)

    def price(endpoint: str) -> dict[str, Any]:
        unit_price = _number(simulator.config.unit_price(endpoint))
        return {"endpoint_id": endpoint, "unit_price": unit_price, "unit": "seconds", "currency": "USD"}

    return _page(call, "prices", wanted, price, largest=50)


async def _estimate(simulator: Simulator, call: Call) -> Response:
    """Knows nothing of inputs: units times price, or calls times what calls have cost so far."""
    _key(simulator, call)
    try:
        body = await call.json()
        kind, total = body["estimate_type"], Decimal(0)
        name = {"unit_price": "unit_quantity", "historical_api_price": "call_quantity"}[kind]
        for endpoint, asked in body["endpoints"].items():
            quantity = Decimal(str(asked[name]))
            each = simulator.config.unit_price(endpoint) if kind == "unit_price" else _mean(simulator, endpoint)
            total += quantity * each
    except (ValueError, KeyError, TypeError, AttributeError, InvalidOperation):
        raise Refusal(422, "validation_error", "estimate_type and endpoints are required") from None
    return answer(200, {"estimate_type": kind, "total_cost": _number(total), "currency": "USD"})


def _mean(simulator: Simulator, endpoint: str) -> Decimal:
    paid = [one.result.amount for one in simulator.queue.by_endpoint.get(endpoint, ()) if one.result is not None]
    return sum(paid, Decimal(0)) / len(paid) if paid else simulator.config.unit_price(endpoint) * 5


# --- What was charged ---------------------------------------------------------------------------------------


def _charged(simulator: Simulator, call: Call) -> Iterator[Request]:
    """Requests that cost something and whose billing events have come out, oldest end first."""
    config, now = simulator.config, simulator.clock.now()
    ids, endpoints = _many(call, "request_id"), _many(call, "endpoint_id")
    start, end = _time(call, "start", now - DAY_S), _time(call, "end", now + 1)
    known = simulator.queue.requests
    asked = [known[one] for one in ids if one in known] if ids else list(known.values())
    ended = [one for one in asked if one.ended_at is not None and start <= one.ended_at < end]
    for request in sorted(ended, key=lambda one: one.ended_at or 0.0):
        result, ended_at = request.result, request.ended_at
        if result is None or ended_at is None or not result.amount:
            continue
        wait_s = config.billing_delay_s if request.script.billing_s is None else request.script.billing_s
        if now - ended_at >= wait_s and (not endpoints or request.endpoint in endpoints):
            yield request


async def _billing_events(simulator: Simulator, call: Call) -> Response:
    _admin(simulator, call)
    return _page(call, "billing_events", list(_charged(simulator, call)), partial(_event, simulator), largest=10_000)


def _event(simulator: Simulator, request: Request) -> dict[str, Any]:
    result = request.result
    assert result is not None, "only an ended request is charged"  # noqa: S101
    return {
        "request_id": request.request_id,
        "endpoint_id": request.endpoint,
        "timestamp": iso(request.ended_at or 0.0),
        "output_units": _number(result.units),
        "unit_price": _number(simulator.config.unit_price(request.endpoint)),
        "percent_discount": None,
        "cost_subtotal": _number(result.amount),
        "cost_discount": 0,
        "cost_total": _number(result.amount),
        "cost_estimate_nano_usd": int(result.amount * 1_000_000_000),
    }


async def _usage(simulator: Simulator, call: Call) -> Response:
    _admin(simulator, call)
    units: dict[str, Decimal] = defaultdict(Decimal)
    cost: dict[str, Decimal] = defaultdict(Decimal)
    for request in _charged(simulator, call):
        if request.result is not None:
            units[request.endpoint] += request.result.units
            cost[request.endpoint] += request.result.amount
    rows = [
        {
            "endpoint_id": endpoint,
            "unit": "seconds",
            "quantity": _number(units[endpoint]),
            "unit_price": _number(simulator.config.unit_price(endpoint)),
            "percent_discount": 0,
            "cost_subtotal": _number(cost[endpoint]),
            "cost_discount": 0,
            "cost_total": _number(cost[endpoint]),
            "currency": "USD",
        }
        for endpoint in sorted(units)
    ]
    bucket = {"bucket": iso(simulator.clock.now()), "results": rows}
    return answer(200, {"time_series": [bucket], "summary": rows, "next_cursor": None, "has_more": False})


async def _account(simulator: Simulator, call: Call) -> Response:
    _admin(simulator, call)
    account = simulator.account
    said: dict[str, Any] = {"username": simulator.config.user_id}
    if "credits" in call.query_params.get("expand", ""):
        left = Decimal(1_000_000) if account.balance is None else account.balance - account.spent
        said["credits"] = {"current_balance": _number(left), "currency": "USD"}
    return answer(200, said)


# --- Which requests there were ------------------------------------------------------------------------------


async def _by_endpoint(simulator: Simulator, call: Call) -> Response:
    """The request history: what a lost submit answer is looked up in."""
    _key(simulator, call)
    ids, now = _many(call, "request_id"), simulator.clock.now()
    start = _time(call, "start", now - (90 * DAY_S if ids else DAY_S))
    end = _time(call, "end", now + 1)
    payloads = "payloads" in call.query_params.get("expand", "")
    wanted = call.query_params.get("status")
    found = []
    for endpoint in _many(call, "endpoint_id", required=True):
        # Newest first, up to the start asked for: the history of a load test is long.
        sent = reversed(simulator.queue.by_endpoint.get(endpoint, []))
        for request in takewhile(lambda one: one.submitted_at >= start, sent):
            inside = request.submitted_at < end and (not ids or request.request_id in ids)
            if inside and _listed(simulator, request) and wanted in {None, _kind(request)}:
                found.append(request)
    if call.query_params.get("sort_by") == "duration":
        found.sort(key=lambda one: (one.ended_at or now) - (one.started_at or now), reverse=True)
    else:
        found.sort(key=lambda one: one.ended_at or one.submitted_at, reverse=True)
    return _page(call, "items", found, partial(_item, payloads=payloads), largest=100)


def _listed(simulator: Simulator, request: Request) -> bool:
    config = simulator.config
    seen = config.history_lists_queued or request.started_at is not None or request.ended
    return seen and simulator.clock.now() - request.submitted_at >= config.history_delay_s


def _kind(request: Request) -> str | None:
    if request.result is None:
        return None
    code = request.result.code
    return "success" if code < 400 else "user_error" if code < 500 else "error"


def _item(request: Request, *, payloads: bool) -> dict[str, Any]:
    result = request.result
    took_s = None
    if request.ended_at is not None and request.started_at is not None:
        took_s = round(request.ended_at - request.started_at, 3)
    said: dict[str, Any] = {
        "request_id": request.request_id,
        "endpoint_id": request.endpoint,
        "sent_at": iso(request.submitted_at),
        "started_at": None if request.started_at is None else iso(request.started_at),
        "ended_at": None if request.ended_at is None else iso(request.ended_at),
        "status_code": None if result is None else result.code,
        "duration": took_s,
    }
    if payloads and request.store_io and not request.payloads_deleted:
        said["json_input"] = request.order()
        said["json_output"] = None if result is None else result.output()
    return said


def _delete_payloads(simulator: Simulator, request_id: str) -> Response:
    """Forget what a request said and made, its output file included."""
    request = simulator.queue.requests.get(request_id)
    if request is None:
        raise Refusal(404, "not_found", "No such request")
    path = simulator.files.path(request.request_id, "output.mp4")
    gone = [{"link": simulator.files.url(path), "exception": None}] if simulator.files.drop(path) else []
    request.payloads_deleted = True
    simulator.book.write(request)
    return answer(200, {"cdn_delete_results": gone})


async def _meta(_: Simulator, __: Call) -> Response:
    return answer(200, {"webhook_ip_ranges": OUR_RANGES})


ROUTES: Final[dict[tuple[str, str], Callable[[Simulator, Call], Awaitable[Response]]]] = {
    ("GET", "models"): _models,
    ("GET", "models/pricing"): _pricing,
    ("POST", "models/pricing/estimate"): _estimate,
    ("GET", "models/billing-events"): _billing_events,
    ("GET", "models/usage"): _usage,
    ("GET", "models/requests/by-endpoint"): _by_endpoint,
    ("GET", "account/billing"): _account,
    ("GET", "meta"): _meta,
}
