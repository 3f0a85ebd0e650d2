"""POST /v1/quotes."""

from fastapi import APIRouter, Request

from app.billing.prices import Unpriced
from app.billing.routes import InvalidOrder
from app.billing.schemas import QuoteOrder, QuoteView
from app.catalog.catalog import UnknownModel
from app.db import Database
from app.errors import BodyTooLarge, InvalidRequest, Unavailable, problems
from app.jobs import ordering
from app.jobs.ordering import Terms
from app.tenants.auth import MayAsk, Unauthorized
from app.tenants.caller import Forbidden

router = APIRouter(prefix="/v1", tags=["Money"])


@router.post(
    "/quotes",
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
    db: Database = request.app.state.db
    return QuoteView.of(order.model, await ordering.quoted(db, caller, Terms.of(request), order))
