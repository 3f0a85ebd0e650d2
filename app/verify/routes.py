"""GET /v1/admin/verify."""

from asyncio import Lock
from typing import Annotated

from fastapi import APIRouter, Query, Request

from app.errors import AppError, InvalidRequest, Unavailable, problems
from app.tenants.auth import Admin, Unauthorized
from app.tenants.caller import Forbidden
from app.verify.schemas import ReportView
from app.verify.verifier import OVERDUE_S, verify

router = APIRouter(prefix="/v1/admin", tags=["Operations"])


class VerifyRunning(AppError):
    """The promises are being proved right now; wait for that to end."""

    status, code = 409, "verify_running"


@router.get(
    "/verify",
    operation_id="verify",
    summary="Prove the promises",
    responses=problems(Unauthorized, Forbidden, VerifyRunning, InvalidRequest, Unavailable),
)
async def verify_all(
    request: Request,
    caller: Admin,
    overdue_s: Annotated[
        float,
        Query(
            gt=0,
            le=1_000_000,
            description="How long past the time of its next step an unfinished job counts as hanging",
        ),
    ] = OVERDUE_S,
) -> ReportView:
    """
    Read every job, attempt, event and entry of all tenants in one snapshot, and name what breaks a promise.

    It changes nothing. It takes seconds for a hundred thousand jobs and is done one at a time.
    """
    proving: Lock = request.app.state.proving
    if proving.locked():
        raise VerifyRunning(headers={"Retry-After": "5"})
    async with proving:
        return ReportView.of(await verify(request.app.state.db, overdue_s=overdue_s))
