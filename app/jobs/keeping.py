"""
What became of jobs' files, noted in sets: which are safe, which were given up, and what that makes of their jobs.

`media.rescuer` gathers what it finishes while a set is being committed; that is the next set. Once none of a job's
files is under way any more the job says so, and who listens is told, all in one transaction of two round trips.
"""

from collections.abc import Sequence
from typing import Any, Final

from app.callbacks import outbox
from app.callbacks.events import EventType
from app.jobs import callbacks, queries
from app.lines import Few, bytea, told
from app.media.rescuer import MINE, Ended

# Two files of a job may end side by side: the second waits here, and then sees the first.
HOLD: Final = """
    SELECT FROM unnest(CAST(%(tenants)s AS uuid[]), CAST(%(jobs)s AS uuid[])) AS told (tenant_id, id)
    JOIN jobs ON jobs.tenant_id = told.tenant_id AND jobs.id = told.id
    ORDER BY jobs.tenant_id, jobs.id
    FOR UPDATE OF jobs
"""
# A file that somebody else took meanwhile isn't ours to speak of; one that is noted already, by a commit whose answer
# got lost, says the path of this very copy.
NOTE: Final = f"""
WITH told AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(told)s) AS told (
        place bigint, tenant_id uuid, job_id uuid, number bigint, lease_token bigint, path text, size bigint,
        sha256 bytea, content_type text, measured_seconds numeric, error jsonb
    ) LIMIT (SELECT %(many)s)
), mine AS MATERIALIZED (
    {MINE}
), file AS (
    UPDATE outputs SET
        path = told.path, size = told.size, sha256 = told.sha256, measured_seconds = told.measured_seconds,
        content_type = coalesce(told.content_type, outputs.content_type), error = told.error,
        safe_at = CASE WHEN told.path IS NOT NULL THEN now() END,
        given_up_at = CASE WHEN told.path IS NULL THEN now() ELSE given_up_at END, due_at = NULL, lease_owner = NULL
    FROM mine AS told
    WHERE outputs.tenant_id = told.tenant_id AND outputs.job_id = told.job_id AND outputs.number = told.number
        AND told.is_ours
    RETURNING place, outputs.tenant_id, outputs.job_id, outputs.number, outputs.due_at, outputs.safe_at,
        outputs.error, outputs.measured_seconds
), beside AS (
    SELECT outputs.*
    FROM (SELECT DISTINCT tenant_id, job_id FROM file) AS mine
    JOIN outputs ON outputs.tenant_id = mine.tenant_id AND outputs.job_id = mine.job_id
    LEFT JOIN file
        ON file.tenant_id = outputs.tenant_id AND file.job_id = outputs.job_id AND file.number = outputs.number
    WHERE file.number IS NULL
), whole AS (
    SELECT tenant_id, job_id, bool_or(due_at IS NOT NULL) AS under_way,
        (array_agg(error ORDER BY number) FILTER (WHERE safe_at IS NULL))[1] AS lost,
        (array_agg(measured_seconds ORDER BY number) FILTER (WHERE measured_seconds IS NOT NULL))[1] AS length
    FROM (
        SELECT tenant_id, job_id, number, due_at, safe_at, error, measured_seconds FROM file
        UNION ALL
        SELECT tenant_id, job_id, number, due_at, safe_at, error, measured_seconds FROM beside
    ) AS every
    GROUP BY tenant_id, job_id
), job AS (
    UPDATE jobs
    SET safe_at = CASE WHEN lost IS NULL THEN now() END, safe_error = lost, measured_seconds = length
    FROM whole
    WHERE jobs.tenant_id = whole.tenant_id AND jobs.id = whole.job_id AND NOT under_way
    RETURNING {queries.COLUMNS}
), safe AS (
    SELECT *, {outbox.listeners_of("job", f"'{EventType.SAFE}'")} AS listeners FROM job WHERE safe_at IS NOT NULL
)
SELECT told.place, file.place IS NOT NULL OR kept.path IS NOT NULL AS noted, safe.*
FROM told
LEFT JOIN file ON file.place = told.place
LEFT JOIN outputs AS kept ON kept.tenant_id = told.tenant_id AND kept.job_id = told.job_id
    AND kept.number = told.number AND kept.path = told.path
LEFT JOIN safe ON safe.tenant_id = told.tenant_id AND safe.id = told.job_id AND safe.listeners IS NOT NULL
"""  # noqa: S608 - names of our own columns


async def note_ended(ask: Few, members: Sequence[Ended]) -> list[bool]:
    """Whether each of *members* is noted now; False for a file that has gone to another worker."""
    held = {
        "tenants": [member.row.tenant_id for member in members],
        "jobs": [member.row.job_id for member in members],
    }
    ends = [_end(place, member) for place, member in enumerate(members)]
    _, rows = await ask((HOLD, held), (NOTE, told(ends)))
    safe = {row.id: row for row in rows if row.id is not None}
    await ask(*outbox.adding(callbacks.safe(job, job.listeners).news() for job in safe.values()), commit=True)
    noted = {row.place: row.noted for row in rows}
    return [noted[place] for place in range(len(members))]


def _end(place: int, member: Ended) -> dict[str, Any]:
    row, kept = member.row, member.kept
    found = {"place": place, "tenant_id": row.tenant_id, "job_id": row.job_id, "number": row.number}
    found["lease_token"] = row.lease_token
    if kept is None:
        return {**found, "error": member.error and member.error.told()}
    return {
        **found,
        "path": kept.path,
        "size": kept.size,
        "sha256": bytea(kept.sha256),
        "content_type": kept.content_type,
        "measured_seconds": kept.seconds,
    }
