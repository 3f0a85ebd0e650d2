"""
Callsheet under schemathesis: each operation by itself, and one after another as their answers lead; `make fuzz`.

It looks until its time is up, with new examples every round. A fault is shown as the curl command that does it again,
and with the seed of the run.
"""

import asyncio
import logging
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Final

import structlog

from app.db import Database
from app.migrate import upgrade
from app.postgres import EmbeddedPostgres
from tests import factories as make
from tests.databases import connected
from tests.following import service

SCHEMATHESIS: Final = Path(sys.executable).with_name("schemathesis")
CONFIG: Final = Path(__file__).with_name("schemathesis.toml")
# Each has its share of the time; together, the first would take nearly all of it.
PHASES: Final = ("examples,coverage,fuzzing", "stateful")
# It finds the key that it calls with in the list of keys, and would soon have revoked it.
KEEP: Final = """
    CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN NEW.revoked_at := NULL; NEW.expires_at := NULL; RETURN NEW; END';
    CREATE TRIGGER keep BEFORE UPDATE ON api_keys FOR EACH ROW WHEN (OLD.id = '{key_id}') EXECUTE FUNCTION keep();
"""


async def fuzz(url: str, folder: Path, seconds: int, seed: int) -> int:
    """
    Look for *seconds* at a service that keeps its files in *folder*.

    Returns 0 if every answer was one that the document tells of.
    """
    db = Database(url)
    caller, key = await make.make_key(db)
    intent = await make.taken(db, caller)
    await make.submit(db, intent)
    await make.report(db, intent, make.success())
    await db.close()
    with connected(url) as connection:
        connection.execute(KEEP.format(key_id=caller.key_id).encode())
    # It calls without a valid key more often than anybody may.
    async with service(url, data=folder, failures_per_minute=sys.maxsize) as served:
        command = [str(SCHEMATHESIS), "--config-file", str(CONFIG), "--no-color", "run", f"{served.url}/openapi.json"]
        options = ["--max-time", str(seconds // len(PHASES)), "--seed", str(seed)]
        faulty = 0
        for phases in PHASES:
            running = await asyncio.create_subprocess_exec(
                *command, *options, "--phases", phases, env={**os.environ, "KEY": key}
            )
            faulty |= await running.wait()
        return faulty


def main() -> None:
    """Look for as many minutes as the command line says."""
    seconds = max(round(float(sys.argv[1]) * 60), len(PHASES))
    seed = int(os.environ.get("SEED") or random.randrange(2**32))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder, "postgres")) as postgres:
        upgrade(postgres.url)
        faulty = asyncio.run(fuzz(postgres.url, Path(folder), seconds, seed))
    if faulty:
        print(f"Again: make fuzz SEED={seed} MINUTES={sys.argv[1]}")
    sys.exit(faulty)


if __name__ == "__main__":
    main()
