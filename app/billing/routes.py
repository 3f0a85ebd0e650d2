"""POST /v1/quotes, GET /v1/balance, GET /v1/ledger."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from sqlalchemy import select

from app import paging
from app.billing import queries
from app.billing.prices import Quote, Unpriced, quote
from app.billing.schemas import BalanceView, EntryView, LedgerPage, QuoteOrder, QuoteView
from app.billing.tables import Account, Kind
from app.catalog.catalog import Catalog, UnknownModel
from app.db import Database
from app.errors import AppError, BodyTooLarge, Fault, InvalidRequest, Unavailable, problems
from app.tenants.auth import BillingReader, MayAsk, Unauthorized
from app.tenants.caller import Forbidden

router = APIRouter(prefix="/v1")


class InvalidOrder(AppError):
    """The input isn't one this model takes; every fault is listed."""

    status, code = 422, "invalid_order"


def priced(catalog: Catalog, model_id: str, value: dict[str, Any]) -> Quote:
    """The price of an order. Raises UnknownModel, InvalidOrder with every fault of the input, or Unpriced."""
    model = catalog.known(model_id)
    if faults := model.faults(value):
        raise InvalidOrder(errors=[Fault(pointer=f"/input{at}", code=code, detail=told) for at, code, told in faults])
    return quote(model, value)


@router.post(
    "/quotes",
    tags=["Money"],
    operation_id="create_quote",
    summary="Price an order",
    responses=problems(
        Unauthorized,
        Forbidden,
        UnknownModel,
        BodyTooLarge,
        InvalidOrder,
        InvalidRequest,
        Unpriced,
        Unavailable,
    ),
)
async def create_quote(request: Request, caller: MayAsk, order: QuoteOrder) -> QuoteView:
    """What the order would cost, checked exactly as `POST /v1/jobs` would check it; nothing is held or kept."""
    if not caller.may_use(order.model):
        raise Forbidden("This token may not order from this model.")
    return QuoteView.of(order.model, priced(request.app.state.catalog, order.model, order.input))


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
        account = (await session.scalars(select(Account).where(Account.tenant_id == caller.tenant_id))).one()
    return BalanceView.of(account)


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
