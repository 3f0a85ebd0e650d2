"""
Errors a caller can act on, told as RFC 9457 problem+json.

An AppError lives beside the code that raises it; its docstring is the title a caller reads. Whatever
else goes wrong becomes a plain 500 with a request id and nothing of our insides.
"""

import inspect
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar, Final

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

log = structlog.get_logger()

MEDIA_TYPE: Final = "application/problem+json"
# Pythons differ in what they call these; the document of the API must not.
RENAMED: Final = {413: "Content Too Large", 422: "Unprocessable Content"}
DATABASE_AWAY: Final = (OperationalError, InterfaceError, PoolTimeout)


class Fault(BaseModel):
    """One thing wrong with an order, and how to mend it."""

    pointer: str = Field(description="JSON Pointer (RFC 6901) into the body, or the name of a parameter")
    code: str = Field(description="Stable word for the kind of fault")
    detail: str = Field(description="What is wrong and how to mend it")


class Problem(BaseModel):
    """An RFC 9457 problem: what went wrong, whether it is the caller's to mend, and every fault found."""

    type: str = Field(
        description="URI that names the kind of problem", examples=["urn:callsheet:problem:invalid_order"]
    )
    title: str = Field(description="The kind of problem in one sentence")
    status: int = Field(description="HTTP status code")
    code: str = Field(description="Stable word to branch on", examples=["invalid_order"])
    detail: str | None = Field(default=None, description="What happened this time")
    request_id: str = Field(description="Names this request in the service's logs")
    errors: list[Fault] = Field(default_factory=list, description="Every fault of the input, all at once")


class AppError(Exception):
    """Something went wrong."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        detail: str | None = None,
        *,
        errors: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail or self.title())
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})

    @classmethod
    def title(cls) -> str:
        """The first line of the class's docstring."""
        return (inspect.getdoc(cls) or cls.__name__).splitlines()[0]


class InvalidRequest(AppError):
    """The request isn't well-formed; every fault found is listed."""

    status, code = 422, "invalid_request"


class NotFound(AppError):
    """There is no such thing here, or not for this key."""

    status, code = 404, "not_found"


class BodyTooLarge(AppError):
    """The body is larger than this service takes."""

    status, code = 413, "body_too_large"


class BodyTooSlow(AppError):
    """The body came too slowly, or not at all."""

    status, code = 408, "body_too_slow"


class Unavailable(AppError):
    """Something this needs can't be reached right now; with the same Idempotency-Key a repeat is safe."""

    status, code = 503, "unavailable"


class Unexpected(AppError):
    """Something went wrong on our side; it is in the logs under this request id."""


def problem(error: AppError, request: Request) -> Response:
    """The answer that tells *error*."""
    return _answer(told(error, request), error.headers)


def told(error: AppError, request: Request) -> Problem:
    """*error* as what the caller reads of it."""
    return _problem(request, error.status, error.code, error.title(), error.detail, error.errors)


def _problem(
    request: Request, status: int, code: str, title: str, detail: str | None = None, errors: Sequence[Fault] = ()
) -> Problem:
    return Problem(
        type=f"urn:callsheet:problem:{code}",
        title=title,
        status=status,
        code=code,
        detail=detail,
        request_id=request.scope.get("request_id", ""),
        errors=list(errors),
    )


def _answer(told: Problem, headers: Mapping[str, str] | None = None) -> Response:
    return Response(told.model_dump_json(), told.status, headers=headers, media_type=MEDIA_TYPE)


def faults_of(error: RequestValidationError) -> list[Fault]:
    """Pydantic's findings as faults, without the values they were found in."""
    return [
        Fault(
            # Pydantic tells where unreadable JSON broke as if it were a place in it.
            pointer="" if found["type"] == "json_invalid" else _pointer(found["loc"]),
            code=str(found["type"]),
            detail="This field isn't known here; check its spelling."
            if found["type"] == "extra_forbidden"
            else str(found["msg"]),
        )
        for found in error.errors()
    ]


def _pointer(loc: Sequence[int | str]) -> str:
    where, *path = loc
    if where != "body":
        return ".".join(str(part) for part in path)
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def problems(*errors: type[AppError]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` for a route that may answer with *errors*, each with an example."""
    answers: dict[int | str, dict[str, Any]] = {}
    if BodyTooLarge in errors:
        # Whatever has a body may also be sent too slowly.
        errors = (*errors, BodyTooSlow)
    for error in errors:
        example = {
            "type": f"urn:callsheet:problem:{error.code}",
            "title": error.title(),
            "status": error.status,
            "code": error.code,
            "detail": None,
            "request_id": "0197a2b8-6c4e-7d31-9f00-3a5f0c1d2e4b",
            "errors": [],
        }
        answer = answers.setdefault(
            error.status,
            {
                "description": RENAMED.get(error.status) or HTTPStatus(error.status).phrase,
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}},
            },
        )
        answer["content"][MEDIA_TYPE]["examples"][error.code] = {"summary": error.title(), "value": example}
    return answers


OF_BODIES: Final = {BodyTooLarge.status: BodyTooLarge, BodyTooSlow.status: BodyTooSlow}
TOLD: Final = (AppError, RequestValidationError, HTTPException, *DATABASE_AWAY)


def answer(error: Exception, request: Request) -> Response:
    """What is told of *error*, one of the kinds of TOLD."""
    match error:
        case AppError():
            return problem(error, request)
        case RequestValidationError():
            return problem(InvalidRequest(errors=faults_of(error)), request)
        case HTTPException(status_code=status) if status in OF_BODIES:
            return problem(OF_BODIES[status](headers={"Connection": "close"}), request)
        case HTTPException(status_code=400):
            # FastAPI's word for a body that it couldn't even read as JSON.
            fault = Fault(pointer="", code="unreadable", detail="The body must be JSON, in UTF-8.")
            return problem(InvalidRequest(errors=[fault]), request)
        case HTTPException():
            phrase = HTTPStatus(error.status_code).phrase
            code = phrase.lower().replace(" ", "_").replace("-", "_")
            return _answer(_problem(request, error.status_code, code, phrase), error.headers)
    # The driver's text quotes the statement's values; only its kind is told.
    log.warning("database_unavailable", kind=type(getattr(error, "orig", error)).__name__)
    return problem(Unavailable(headers={"Retry-After": "1"}), request)


def install(app: FastAPI) -> None:
    """Tell every error of *app* as problem+json."""

    async def tell(request: Request, error: Exception) -> Response:
        return answer(error, request)

    async def tell_no_more(request: Request, _: Exception) -> Response:
        return problem(Unexpected(), request)

    for kind in TOLD:
        app.add_exception_handler(kind, tell)
    # Told here, before Starlette says it in its own words; raised again, and logged at the edge.
    app.add_exception_handler(Exception, tell_no_more)
