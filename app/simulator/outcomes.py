"""How a request ends: the answers that the result URL replays."""

import json
from decimal import Decimal
from typing import Any

from app.simulator.errors import MODEL_ERRORS, REQUEST_ERRORS, RETRIED, SHORTHANDS
from app.simulator.inputs import Problem
from app.simulator.requests import Result


def success(file: dict[str, Any], *, pad: int, units: Decimal, amount: Decimal) -> Result:
    """A video was made."""
    body: dict[str, Any] = {"video": file}
    if pad:
        body["padding"] = "x" * pad
    return Result(200, json.dumps(body), units, amount)


def request_error(kind: str) -> Result:
    """fal itself gave up on the request."""
    code, text = REQUEST_ERRORS[kind]
    headers = {"X-Fal-Error-Type": kind}
    if code in RETRIED:
        headers["X-Fal-needs-retry"] = "1"
    return Result(code, json.dumps({"detail": text, "error_type": kind}), error=text, error_type=kind, headers=headers)


def start_timeout() -> Result:
    """The caller's start timeout ran out before a runner took it."""
    result = request_error("request_timeout")
    result.headers["X-Fal-Request-Timeout-Type"] = "user"
    return result


def refused(found: list[Problem]) -> Result:
    """The endpoint's check of the input failed; free."""
    return Result(422, json.dumps({"detail": found}), error=found[0]["msg"], error_type=found[0]["type"])


def no_such_path(path: str) -> Result:
    """The app runs but has no such sub path."""
    text = f"Path /{path} not found"
    return Result(404, json.dumps({"detail": text}), error=text, error_type="bad_request")


def failure(outcome: str, order: Any, *, units: Decimal, amount: Decimal) -> Result:
    """The ending a script asked for; *units* and *amount* count for the billed one only."""
    if outcome == "crash":
        text = "Internal Server Error"
        return Result(500, json.dumps({"detail": text}), error=text, error_type="runner_server_error")
    if outcome == "text":
        text = "Something went wrong with the generation, please try again."
        return Result(422, json.dumps({"detail": text}), error=text, error_type="bad_request")
    if outcome == "not_serialisable":
        return Result(200, "null", units, amount, payload_error="Response payload is not JSON serializable")
    if outcome in REQUEST_ERRORS:
        return request_error(outcome)
    kind = SHORTHANDS.get(outcome, outcome)
    code, text = MODEL_ERRORS[kind]
    loc = ["body", "prompt"] if kind == "content_policy_violation" else ["body"]
    detail = [{"loc": loc, "msg": text, "type": kind, "url": f"https://docs.fal.ai/errors/#{kind}", "input": order}]
    result = Result(code, json.dumps({"detail": detail}), error=text, error_type=kind)
    if code >= 500:
        result.headers["X-Fal-Retryable"] = "true"
    if outcome == "policy_billed":
        result.units, result.amount = units, amount
    return result
