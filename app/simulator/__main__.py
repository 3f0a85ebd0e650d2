"""python -m app.simulator --port 8001 --data .simulator"""

import argparse
import asyncio
import sys
from pathlib import Path

from app.simulator.clips import NoEncoder, require_encoder
from app.simulator.config import SimulatorConfig
from app.simulator.serve import serve


def main() -> None:
    """Run fal in a box until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m app.simulator", description="fal in a box: no money is spent.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--data", type=Path, help="folder for its books and files; without it they end with it")
    parser.add_argument("--public-url", help="how callers reach it, if not by host and port")
    parser.add_argument("--concurrency", type=int, default=10)
    parser.add_argument("--queue-s", type=float, default=1.0)
    parser.add_argument("--run-s", type=float, default=3.0)
    parser.add_argument("--seed", type=int, help="of random faults; their rates are set at /simulator/faults")
    given = parser.parse_args()
    try:
        require_encoder()
    except NoEncoder as error:
        sys.exit(str(error))
    config = SimulatorConfig(
        public_url=given.public_url or f"http://{given.host}:{given.port}",
        data_dir=given.data,
        concurrency=given.concurrency,
        queue_s=given.queue_s,
        run_s=given.run_s,
        seed=given.seed,
    )
    sys.stdout.write(f"fal simulator at {config.public_url}/simulator; no money is spent\n")
    sys.stdout.flush()
    asyncio.run(serve(config, given.host, given.port))


if __name__ == "__main__":
    main()
