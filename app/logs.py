"""Logs: one constant event name, facts in fields; JSON for machines, colours for a person at a terminal."""

import logging
import sys
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any, Final

import structlog

# Whatever a caller or fal may have put here stays out of every log line, whoever logs it.
PRIVATE: Final = frozenset(
    {
        "authorization",
        "body",
        "headers",
        "input",
        "key",
        "output",
        "payload",
        "prompt",
        "secret",
        "signature",
        "token",
    }
)


REQUEST_ID: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)
"""The request that is being served, which every line names; structlog's own way to that costs ten times as much."""


def _name_request(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if (request_id := REQUEST_ID.get()) is not None:
        event["request_id"] = request_id
    return event


def _keep_quiet(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in PRIVATE & event.keys():
        event[name] = "[hidden]"
    return event


def setup(level: str = "INFO", *, json: bool | None = None) -> None:
    """Send our logs, uvicorn's and the libraries' through one pipe; *json* defaults to 'not at a terminal'."""
    shared: list[Any] = [
        _name_request,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _keep_quiet,
        structlog.processors.format_exc_info,
    ]
    as_json = json if json is not None else not sys.stderr.isatty()
    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # These name every address asked for, with its query; a webhook URL in there is a secret.
    for noisy in ("httpx", "httpcore", "uvicorn.access", "alembic.runtime.plugins"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        cache_logger_on_first_use=True,
    )
