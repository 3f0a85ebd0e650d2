"""Examples in the API's document as they were written: FastAPI leaves out every null, also where one is an answer."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.encoders import jsonable_encoder
from fastapi.routing import APIRoute
from pydantic import BaseModel

from app.docs.streams import tell_streams


def keep_whole(app: FastAPI) -> None:
    """Let the document of *app* show the examples of its shapes and webhooks with their nulls."""
    shortened = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        document = shortened()
        shapes = document["components"]["schemas"]
        for model in _models(BaseModel):
            shape, extra = shapes.get(model.__name__, {}), model.model_config.get("json_schema_extra")
            written = extra.get("examples") if isinstance(extra, dict) else None
            # Another shape may have this name, but not these examples.
            if written and jsonable_encoder(written, exclude_none=True) == shape.get("examples"):
                shape["examples"] = jsonable_encoder(written)
        for route in app.webhooks.routes:
            if isinstance(route, APIRoute) and route.openapi_extra:
                content = document["webhooks"][route.path]["post"]["requestBody"]["content"]
                for kind, written in route.openapi_extra["requestBody"]["content"].items():
                    content[kind] |= jsonable_encoder(written)
        tell_streams(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign] # as FastAPI's documentation has it


def _models(parent: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for model in parent.__subclasses__():
        yield model
        yield from _models(model)
