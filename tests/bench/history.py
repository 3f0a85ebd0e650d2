"""
A database with a past: JOBS=10000000 python -m tests.bench.history URL

The lives are those that `make verify-scale` proves; here they also get keys, so that the product can serve them.
"""

import os
import sys
from typing import Final

import psycopg

from app.migrate import upgrade
from app.tenants.keys import Scope
from tests.bench.stage import key_of
from tests.history import fill

LOOKED_AT: Final = 1
"""The number of the key of the tenant with the most jobs."""


def make(url: str, jobs: int) -> None:
    """Put *jobs* jobs of all kinds into the empty database at *url*; each tenant gets a key."""
    upgrade(url)
    fill(url, jobs)
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        tenants = connection.execute("SELECT tenant_id FROM jobs GROUP BY tenant_id ORDER BY count(*) DESC").fetchall()
        for number, (tenant_id,) in enumerate(tenants, start=LOOKED_AT):
            connection.execute(
                "INSERT INTO api_keys (tenant_id, id, name, prefix, digest, scopes)"
                " VALUES (%s, gen_random_uuid(), 'bench', 'cs_', sha256(CAST(%s AS bytea)), %s)",
                (tenant_id, key_of(number), sorted(Scope)),
            )


if __name__ == "__main__":
    make(sys.argv[1], int(os.environ.get("JOBS", "1000000")))
