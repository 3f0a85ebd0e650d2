"""The event loop that long-lived processes run on."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


def run(main: Coroutine[Any, Any, None]) -> None:
    """Like `asyncio.run`, on uvloop where that is installed, as the HTTP server does by itself."""
    new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None
    try:
        import uvloop  # noqa: PLC0415 - not on every system

        new_loop = uvloop.new_event_loop
    except ImportError:
        pass
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main)
