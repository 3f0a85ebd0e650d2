"""Running the simulator as a server of its own."""

import uvicorn

from app.simulator.app import create_simulator
from app.simulator.clips import require_encoder
from app.simulator.config import SimulatorConfig


async def serve(config: SimulatorConfig, host: str, port: int) -> None:
    """Serve a simulator on *host* and *port* until the process is told to stop."""
    require_encoder()
    app = create_simulator(config)
    settings = uvicorn.Config(app, host=host, port=port, log_level="warning", access_log=False)
    await uvicorn.Server(settings).serve()
