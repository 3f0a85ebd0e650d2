"""/simulator/…: see what fal would know, and decide what goes wrong. Open to anyone who can reach the port."""

from dataclasses import asdict
from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, HTTPException, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from app.simulator.clock import iso
from app.simulator.faults import FaultRates
from app.simulator.requests import Request as FalRequest
from app.simulator.requests import State
from app.simulator.script import DELIVERIES, BadScript, Script
from app.simulator.simulator import Simulator, fingerprint

router = APIRouter(prefix="/simulator", tags=["simulator"])


def the_simulator(request: Request) -> Simulator:
    simulator: Simulator = request.app.state.simulator
    return simulator


TheSimulator = Annotated[Simulator, Depends(the_simulator)]


class ClockChange(BaseModel):
    """Where to put fal's clock."""

    model_config = ConfigDict(extra="forbid")
    offset_s: float | None = None
    """Seconds from the true time."""
    advance_s: float = Field(0.0, ge=0)
    """Seconds on from where it stands; what becomes due meanwhile happens at once."""
    stopped: bool | None = None


class AccountChange(BaseModel):
    """What holds for the account from now on; what isn't named stays."""

    model_config = ConfigDict(extra="forbid")
    locked: bool | None = None
    reason: str = "Exhausted balance"
    key: str | None = None
    """Lock, or unlock, for calls with this key only, as if it were another account's."""
    balance: Decimal | None = None
    concurrency: int | None = Field(None, ge=0)


class ScriptOrder(BaseModel):
    """A script for submits to come."""

    model_config = ConfigDict(extra="forbid")
    script: dict[str, Any]
    next: int = Field(1, ge=0)
    """How many of the next submits follow it; those that bring a script of their own aren't counted."""


class WebhookOrder(BaseModel):
    """One more webhook about an ended request."""

    model_config = ConfigDict(extra="forbid")
    form: str = "ok"
    url: str | None = None
    """Another target than the one it was submitted with."""


@router.get("/requests")
async def list_requests(
    simulator: TheSimulator,
    endpoint: str | None = None,
    state: State | None = None,
    webhook_url: str | None = None,
    after: int = 0,
    limit: Annotated[int, Query(ge=0)] = 1000,
) -> dict[str, Any]:
    """The books: every submit that was accepted, oldest first, and what it all cost."""
    found = [
        one
        for one in simulator.queue.requests.values()
        if one.number >= after
        and endpoint in {None, one.endpoint}
        and state in {None, one.state}
        and webhook_url in {None, one.webhook_url}
    ]
    shown = found[:limit]
    more = found[limit].number if len(found) > limit else None
    return {"requests": [entry(simulator, one) for one in shown], "next_after": more, "totals": totals(simulator)}


@router.get("/requests/{request_id}")
async def get_request(simulator: TheSimulator, request_id: str) -> dict[str, Any]:
    """One entry of the books, result included."""
    request = _known(simulator, request_id)
    found = None if request.result is None else {"code": request.result.code, "body": request.result.output()}
    return entry(simulator, request) | {"result": found}


def totals(simulator: Simulator) -> dict[str, Any]:
    """The account at a glance."""
    twins = sum(count - 1 for count in simulator.submits.values())
    return {
        "submits": simulator.tally["submits"],
        "accepted": len(simulator.queue.requests),
        "waiting": simulator.queue.waiting,
        "running": simulator.queue.running,
        "twins": twins,
        "lost_answers": simulator.tally["lost_answers"],
        "billed": str(simulator.account.spent),
    }


def entry(simulator: Simulator, request: FalRequest) -> dict[str, Any]:
    """One accepted submit as the books have it."""
    result = request.result
    return {
        "number": request.number,
        "request_id": request.request_id,
        "gateway_request_id": request.gateway_request_id,
        "endpoint": request.endpoint,
        "input": request.order(),
        "webhook_url": request.webhook_url,
        "script": request.words,
        "state": request.state,
        "attempts": request.attempts,
        "outcome": None if result is None else result.error_type or "ok",
        "status_code": None if result is None else result.code,
        "units": None if result is None else str(result.units),
        "billed": None if result is None else str(result.amount),
        "cancel_asked": request.cancel_asked,
        "submits": simulator.submits[fingerprint(request)],
        "webhooks": [asdict(one) for one in request.deliveries],
        "told": request.told,
        "submitted_at": iso(request.submitted_at),
        "started_at": None if request.started_at is None else iso(request.started_at),
        "ended_at": None if request.ended_at is None else iso(request.ended_at),
    }


@router.get("/clock")
async def get_clock(simulator: TheSimulator) -> dict[str, Any]:
    """What time it is for fal."""
    clock = simulator.clock
    return {"now": iso(clock.now()), "offset_s": clock.offset_s, "stopped": clock.stopped}


@router.put("/clock")
async def set_clock(simulator: TheSimulator, change: ClockChange) -> dict[str, Any]:
    """Move fal's clock on, or stop it."""
    simulator.set_clock(offset_s=change.offset_s, advance_s=change.advance_s, stopped=change.stopped)
    return await get_clock(simulator)


@router.get("/faults")
async def get_faults(simulator: TheSimulator) -> dict[str, float]:
    """How often things go wrong by chance."""
    return asdict(simulator.rates)


@router.put("/faults")
async def set_faults(
    simulator: TheSimulator, rates: Annotated[dict[str, float], Body()], seed: int | None = None
) -> dict[str, float]:
    """Set all rates; what isn't named is 0. A *seed* starts the dice anew."""
    try:
        simulator.set_rates(FaultRates.read(rates), seed)
    except ValueError as error:
        raise HTTPException(422, str(error)) from None
    return asdict(simulator.rates)


@router.get("/account")
async def get_account(simulator: TheSimulator) -> dict[str, Any]:
    """Whether the account is open, and what it has spent."""
    account = simulator.account
    balance = None if account.balance is None else str(account.balance - account.spent)
    open_to = {"locked": account.lock is not None, "reason": account.lock, "balance": balance}
    return open_to | {"spent": str(account.spent), "concurrency": simulator.queue.concurrency}


@router.put("/account")
async def set_account(simulator: TheSimulator, change: AccountChange) -> dict[str, Any]:
    """Lock or unlock the account, top it up, or change how many requests may run."""
    account = simulator.account
    if change.key is not None:
        account.locked_keys.pop(change.key, None)
        if change.locked:
            account.locked_keys[change.key] = change.reason
        return await get_account(simulator)
    reason = account.locked_for if change.locked is None else change.reason if change.locked else None
    balance = account.balance if change.balance is None else change.balance + account.spent
    if change.locked is False and change.balance is None and account.lock is not None and reason is None:
        # Unlocked without a top-up: the prepaid credit no longer counts.
        balance = None
    simulator.set_account(locked_for=reason, balance=balance)
    if change.concurrency is not None:
        simulator.queue.concurrency = change.concurrency
        simulator.queue.start_ready()
    return await get_account(simulator)


@router.get("/script")
async def get_script(simulator: TheSimulator) -> dict[str, Any]:
    """The scripts that wait for a submit."""
    return {"scripts": list(simulator.next_scripts)}


@router.put("/script")
async def set_script(simulator: TheSimulator, order: ScriptOrder) -> dict[str, Any]:
    """Let the next submits follow a script, after those set before; `next: 0` takes all of them back."""
    try:
        Script.read(order.script)
    except BadScript as error:
        raise HTTPException(422, str(error)) from None
    if order.next == 0:
        simulator.next_scripts.clear()
    simulator.next_scripts.extend([order.script] * order.next)
    return await get_script(simulator)


@router.post("/webhooks/{request_id}")
async def send_webhook(simulator: TheSimulator, request_id: str, order: WebhookOrder) -> dict[str, Any]:
    """Tell the caller of an ended request once more, truly or falsely; the answer says how it went."""
    request = _known(simulator, request_id)
    if order.form not in DELIVERIES:
        raise HTTPException(422, f"form is one of {', '.join(sorted(DELIVERIES))}")
    if request.result is None or (order.url or request.webhook_url) is None:
        raise HTTPException(409, "it hasn't ended, or there is nobody to tell")
    return asdict(await simulator.webhooks.send(request, order.form, url=order.url))


@router.post("/keys/rotate")
async def rotate_keys(simulator: TheSimulator) -> dict[str, Any]:
    """Sign webhooks with a new key from now on, published beside the old one."""
    simulator.keys.rotate()
    return simulator.keys.jwks()


def _known(simulator: Simulator, request_id: str) -> FalRequest:
    request = simulator.queue.requests.get(request_id)
    if request is None:
        raise HTTPException(404, "no such request")
    return request
