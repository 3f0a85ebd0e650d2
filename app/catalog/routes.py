"""GET /v1/models, GET /v1/models/{model}."""

from typing import Annotated, Any, Final, Self

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from app.catalog.catalog import Catalog, UnknownModel
from app.catalog.model import Model
from app.errors import InvalidRequest, Unavailable, problems
from app.tenants.auth import MayAsk, Unauthorized
from app.tenants.caller import Forbidden

router = APIRouter(prefix="/v1/models", tags=["Models"])


SUMMARY_EXAMPLE: Final[dict[str, Any]] = {
    "id": "fal-ai/kling-video/o3/4k/text-to-video",
    "title": "Kling O3 4K, text to video",
    "kind": "text-to-video",
    "price": {
        "rules": {"seconds_from": ["shots", "duration"], "rates": [{"per_second": "0.42"}]},
        "source": "fal.ai, model page, 2026-11-22",
        "verified": True,
    },
    "note": None,
}
MODEL_EXAMPLE: Final[dict[str, Any]] = {
    **SUMMARY_EXAMPLE,
    "input_schema": {"type": "object", "properties": {"prompt": {"type": "string"}, "duration": {"enum": ["3", "5"]}}},
    "example": {"prompt": "A lighthouse in a storm, slow aerial shot", "duration": "5"},
}


class PriceView(BaseModel):
    """How a model is priced."""

    rules: dict[str, Any] = Field(description="The price rules as the price book writes them; amounts are decimals")
    source: str = Field(description="Where the price comes from, and when it was read")
    verified: bool = Field(description="False where it isn't from fal's own page or price list")


class ModelSummary(BaseModel):
    """A model that can be ordered."""

    id: str = Field(examples=["fal-ai/kling-video/o3/4k/text-to-video"])
    title: str
    kind: str = Field(examples=["text-to-video"])
    price: PriceView | None = Field(description="Null: no price is known, so it can't be ordered")
    note: str | None

    @classmethod
    def of(cls, model: Model) -> Self:
        """*model* in a list."""
        return cls(id=model.id, title=model.title, kind=model.kind, price=_price(model), note=model.note)


class ModelView(ModelSummary):
    """A model, with all it takes to order from it."""

    model_config = ConfigDict(json_schema_extra={"examples": [MODEL_EXAMPLE]})

    input_schema: dict[str, Any] = Field(description="JSON Schema 2020-12 of `input`")
    example: dict[str, Any] = Field(description="An input that this model takes")

    @classmethod
    def of(cls, model: Model) -> Self:
        """*model* by itself."""
        return cls(
            **ModelSummary.of(model).model_dump(),
            input_schema=dict(model.input_schema),
            example=dict(model.example),
        )


class ModelList(BaseModel):
    """Every model that can be ordered."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"data": [SUMMARY_EXAMPLE]}]})

    data: list[ModelSummary]


@router.get(
    "",
    operation_id="list_models",
    summary="List models and prices",
    responses=problems(Unauthorized, Forbidden, InvalidRequest, Unavailable),
)
async def index(
    request: Request,
    caller: MayAsk,
    kind: Annotated[str | None, Query(max_length=100, description="Only this kind, such as `text-to-video`")] = None,
) -> ModelList:
    """Every model of the catalog with its price, where the price comes from, and whether it is verified."""
    catalog: Catalog = request.app.state.catalog
    models = (model for model in catalog.models if kind in {None, model.kind} and caller.may_use(model.id))
    return ModelList(data=[ModelSummary.of(model) for model in models])


@router.get(
    "/{model:path}",
    operation_id="get_model",
    summary="Look at a model",
    responses=problems(Unauthorized, Forbidden, UnknownModel, InvalidRequest, Unavailable),
)
async def show(
    request: Request,
    caller: MayAsk,
    model: Annotated[str, Path(description="The model's id, slashes and all", max_length=300)],
) -> ModelView:
    """The JSON Schema of its input, an example, and its price rules."""
    catalog: Catalog = request.app.state.catalog
    if not caller.may_use(model):
        raise Forbidden("This token may not order from this model.")
    return ModelView.of(catalog.known(model))


def _price(model: Model) -> PriceView | None:
    if model.price is None:
        return None
    return PriceView(
        rules=dict(model.price_rules or {}),
        source=model.price.source,
        verified=all(rate.verified for rate in model.price.rates),
    )
