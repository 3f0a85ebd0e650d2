"""Running the simulator as a server of its own."""

from typing import Final

import uvicorn

from app.simulator.app import create_simulator
from app.simulator.clips import require_encoder
from app.simulator.config import SimulatorConfig

STOP_S: Final = 2
"""Whoever watches a request's status does so until it ends, which may be never."""


async def serve(config: SimulatorConfig, host: str, port: int) -> None:
    """Serve a simulator on *host* and *port* until the process is told to stop."""
    require_encoder()
    app = create_simulator(config)
    settings = uvicorn.Config(
        app, host=host, port=port, log_level="warning", access_log=False, timeout_graceful_shutdown=STOP_S
    )
    await uvicorn.Server(settings).serve()
