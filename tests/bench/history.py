"""
A database with a past: JOBS=10000000 python -m tests.bench.history URL

The lives are those that `make verify-scale` proves; here they also get keys, so that the product can serve them.
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Final

import psycopg

from app.migrate import upgrade
from app.tenants.keys import Scope
from tests.bench.stage import key_of
from tests.history import fill

KEPT: Final = 1_000_000
"""Jobs whose callbacks and webhooks are still there: those of a month, if they are many."""
BYTES_EACH: Final = 5_000
"""What a job takes on disk with all that belongs to it, besides what is only kept for a month."""
SLACK_BYTES: Final = 12_000_000_000
"""For that, for the log of writes, and for sorting."""
LOOKED_AT: Final = 1
"""The number of the key of the tenant with the most jobs."""


def room(folder: Path) -> int:
    """How many jobs the disk of *folder* has room for."""
    return max(0, shutil.disk_usage(folder).free - SLACK_BYTES) // BYTES_EACH


def make(url: str, jobs: int) -> None:
    """Put *jobs* jobs of all kinds into the empty database at *url*; each tenant gets a key."""
    upgrade(url)
    fill(url, jobs, kept=KEPT)
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        # A day's work that a deployment with a past has behind it when the next worker starts.
        connection.execute(
            "INSERT INTO chores (name, done_at, due_at) VALUES ('verify', now(), now() + interval '1 day')"
        )
        tenants = connection.execute("SELECT tenant_id FROM jobs GROUP BY tenant_id ORDER BY count(*) DESC").fetchall()
        for number, (tenant_id,) in enumerate(tenants, start=LOOKED_AT):
            connection.execute(
                "INSERT INTO api_keys (tenant_id, id, name, prefix, digest, scopes)"
                " VALUES (%s, gen_random_uuid(), 'bench', 'cs_', sha256(CAST(%s AS bytea)), %s)",
                (tenant_id, key_of(number), sorted(Scope)),
            )


if __name__ == "__main__":
    make(sys.argv[1], int(os.environ.get("JOBS", "1000000")))
