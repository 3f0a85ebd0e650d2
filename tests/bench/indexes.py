"""What each index takes behind a long history: of the disk, and of Postgres's log for each life that is written."""

from collections.abc import Sequence
from typing import Any, Final

from tests.bench.figure import NotYet
from tests.bench.figures.history import behind
from tests.bench.figures.webhooks import how_many, lived
from tests.bench.stage import Stage
from tests.history import TENANTS
from tests.indexes import REASONS, indexes

# A record may touch several blocks, and belongs to the first; each block may have its own image.
LOGGED: Final = """
    SELECT class.relname,
        sum(block.record_length - coalesce(whole.images, 0)) FILTER (WHERE block.block_id = 0),
        sum(coalesce(block.block_fpi_length, 0))
    FROM pg_get_wal_block_info('{since}', '{until}', false) AS block
    JOIN pg_class AS class ON pg_relation_filenode(class.oid) = block.relfilenode
    JOIN (
        SELECT start_lsn, sum(block_fpi_length) AS images
        FROM pg_get_wal_block_info('{since}', '{until}', false) GROUP BY start_lsn
    ) AS whole ON whole.start_lsn = block.start_lsn
    WHERE block.reldatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
    GROUP BY class.relname
"""
NOW: Final = "SELECT pg_current_wal_insert_lsn()"


async def taken(stage: Stage) -> list[dict[str, Any]]:
    """Each index, the costliest first, in bytes. Raises NotYet if no long history was made, and what `lived` does."""
    jobs: int = stage.kept.get("long", 0)
    if not stage.kept.get(f"history_{jobs}"):
        raise NotYet("no long history was made")
    async with behind(stage, jobs):
        stage.sql("CREATE EXTENSION IF NOT EXISTS pg_walinspect")
        # So that each page that is touched is logged whole once, as it is after every checkpoint.
        stage.sql("CHECKPOINT")
        ((since,),) = stage.sql(NOW)
        await lived(stage, tenants=TENANTS)
        ((until,),) = stage.sql(NOW)
        logged = {name: (log, images) for name, log, images in stage.sql(LOGGED.format(since=since, until=until))}
        found = indexes(stage.url)
    lives = how_many(stage)
    told = [
        {
            "index": each.name,
            "why": REASONS.get(each.name, "the key"),
            "disk_per_job": round(each.size / jobs, 1),
            "log_per_life": round(float(logged.get(each.name, (0, 0))[0] or 0) / lives, 1),
            "images_per_life": round(float(logged.get(each.name, (0, 0))[1]) / lives, 1),
        }
        for each in found
    ]
    return sorted(told, key=lambda one: -one["disk_per_job"])


def table(told: Sequence[dict[str, Any]]) -> list[str]:
    """*told* in Markdown, without what takes next to nothing."""
    if not told:
        return []
    rows = [
        f"| {one['index']} | {one['disk_per_job']:g} | {one['log_per_life']:g} | {one['images_per_life']:g} |"
        f" {one['why']} |"
        for one in told
        if one["disk_per_job"] >= 1 or one["log_per_life"] >= 1
    ]
    return [
        "What each index takes behind the long history, in bytes: on disk for each job; in the log for each life, from",
        "order to charge; and in whole pages that are logged with it right after a checkpoint:",
        "",
        "| index | disk/job | log/life | pages/life | for |",
        "|---|---|---|---|---|",
        *rows,
        "",
    ]
