"""How long `verify` takes for many jobs: `make verify-scale`."""

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from app.db import Database
from app.migrate import upgrade
from app.postgres import EmbeddedPostgres
from app.verify.verifier import verify
from tests.history import fill

# The product's own settings, but for what only making the past gains from.
HASTY: Final = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "8GB", "autovacuum": "off"}


async def _proved(url: str) -> None:
    db = Database(url, pool=1)
    try:
        report = await verify(db)
    finally:
        await db.close()
    counted = ", ".join(f"{count:,} {name}" for name, count in report.counts.items())
    print(f"{counted}: {'clean' if report.ok else 'NOT CLEAN'} in {report.took_s:.1f} s")
    for finding in report.findings:
        print(f"  {finding.check.severity} {finding.check.name}: {finding.count}")
    if not report.ok:
        raise SystemExit(1)


def main(jobs: int) -> None:
    """Fill a database of its own and prove it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedPostgres(Path(folder, "postgres"), settings=HASTY) as postgres,
    ):
        upgrade(postgres.url)
        since = time.monotonic()
        fill(postgres.url, jobs)
        took_s = time.monotonic() - since
        print(f"{jobs:,} jobs made in {took_s:.0f} s, {jobs / took_s:,.0f} a second")
        asyncio.run(_proved(postgres.url))


if __name__ == "__main__":
    main(int(sys.argv[1]))
