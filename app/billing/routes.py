"""GET /v1/balance, GET /v1/ledger; what an order costs, or why it can't be priced."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request

from app import paging
from app.billing import queries
from app.billing.prices import Quote, quote
from app.billing.schemas import BalanceView, EntryView, LedgerPage
from app.billing.tables import Kind
from app.catalog.catalog import Catalog
from app.db import Database
from app.errors import AppError, Fault, InvalidRequest, Unavailable, problems
from app.tenants.auth import BillingReader, Unauthorized
from app.tenants.caller import Forbidden

router = APIRouter(prefix="/v1")


class InvalidOrder(AppError):
    """The input isn't one this model takes; every fault is listed."""

    status, code = 422, "invalid_order"


def priced(catalog: Catalog, model_id: str, value: dict[str, Any]) -> Quote:
    """The price of an order. Raises UnknownModel, InvalidOrder with every fault of the input, or Unpriced."""
    if faults := input_faults(catalog, model_id, value):
        raise InvalidOrder(errors=faults)
    return quote(catalog.known(model_id), value)


def input_faults(catalog: Catalog, model_id: str, value: dict[str, Any]) -> list[Fault]:
    """Everything wrong with *value* as the model's input, files aside. Raises UnknownModel."""
    found = catalog.known(model_id).faults(value)
    return [Fault(pointer=f"/input{at}", code=code, detail=told) for at, code, told in found]


@router.get(
    "/balance",
    tags=["Money"],
    operation_id="get_balance",
    summary="Look at the balance",
    responses=problems(Unauthorized, Forbidden, Unavailable),
)
async def balance(request: Request, caller: BillingReader) -> BalanceView:
    """What is available, what is held for unfinished jobs, and what was spent."""
    db: Database = request.app.state.db
    async with db.reading_as(caller.tenant_id) as session:
        return BalanceView.of(await queries.account(session, caller.tenant_id))


@router.get(
    "/ledger",
    tags=["Money"],
    operation_id="list_ledger_entries",
    summary="List every movement of money",
    responses=problems(Unauthorized, Forbidden, InvalidRequest, Unavailable),
)
async def ledger(
    request: Request,
    caller: BillingReader,
    limit: paging.Limit = 20,
    cursor: paging.Cursor = None,
    kind: Annotated[Kind | None, Query(description="Only entries of this kind")] = None,
    job_id: Annotated[UUID | None, Query(description="Only entries of this job")] = None,
) -> LedgerPage:
    """Newest first. Every entry moves one amount from one side to another, and is never changed."""
    before = paging.decode(cursor)
    db: Database = request.app.state.db
    async with db.reading_as(caller.tenant_id) as session:
        entries = await queries.page(
            session, caller.tenant_id, limit=limit + 1, before=before, kind=kind, job_id=job_id
        )
    shown, next_cursor = paging.cut(entries, limit)
    return LedgerPage(data=[EntryView.of(entry) for entry in shown], next_cursor=next_cursor)
