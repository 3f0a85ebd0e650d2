"""Paid once: fal's books beside ours, a page at a time."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.jobs import tokens
from app.verify.books import Taken
from app.verify.check import Check, Rows, Severity, Tally, examine
from app.verify.words import ENDED

# Every request of a page beside the attempt it belongs to: by the token of its webhook URL, which alone still
# leads home when fal's answer got lost; without one, by fal's id for it. `rival` is another attempt of the same
# job that fal has or may have.
REQUESTS: Final = Rows(
    f"""
    SELECT f.request_id AS id, f.billed, a.id AS attempt_id, a.status AS attempt_status,
        a.fal_request_id AS known_request_id, j.status, j.status IN {ENDED} AS ended, j.charged,
        a.fal_request_id = f.request_id AS owned,
        a.fal_request_id IS NULL AND a.status IN ('submitting', 'unknown') AS lost,
        EXISTS (
            SELECT FROM attempts rival
            WHERE rival.tenant_id = a.tenant_id AND rival.job_id = a.job_id AND rival.id <> a.id
            AND (rival.fal_request_id IS NOT NULL OR rival.status <> 'refused')
        ) AS has_rival,
        a.id = ANY(CAST(:seen AS uuid[])) OR row_number() OVER (PARTITION BY a.id ORDER BY f.request_id) > 1 AS again
    FROM unnest(
        CAST(:request_ids AS text[]), CAST(:tenant_ids AS uuid[]), CAST(:attempt_ids AS uuid[]),
        CAST(:digests AS bytea[]), CAST(:billed AS numeric[])
    ) AS f (request_id, tenant_id, attempt_id, digest, billed)
    LEFT JOIN attempts told
        ON told.tenant_id = f.tenant_id AND told.id = f.attempt_id AND told.token_digest = f.digest
    LEFT JOIN LATERAL (
        SELECT known.tenant_id, known.id FROM tenants t
        JOIN attempts known ON known.tenant_id = t.id AND known.fal_request_id = f.request_id
        WHERE told.id IS NULL LIMIT 1
    ) AS known ON true
    LEFT JOIN attempts a
        ON a.tenant_id = coalesce(told.tenant_id, known.tenant_id) AND a.id = coalesce(told.id, known.id)
    LEFT JOIN jobs j ON j.tenant_id = a.tenant_id AND j.id = a.job_id
    """,  # noqa: S608 - all of it is ours
    {
        "requests_at_fal": "count(*)",
        "billed": "sum(billed)",
        "charged": "sum(charged) FILTER (WHERE owned AND billed IS NOT NULL)",
        "cents_off": "sum(abs(billed - charged) * 100) FILTER (WHERE owned AND status = 'succeeded')",
    },
)

CHECKS: Final = (
    Check(
        "request_has_its_job",
        "Every request that fal took belongs to a job.",
        REQUESTS,
        "attempt_id IS NULL",
    ),
    Check(
        "refused_was_not_taken",
        "What was noted as refused, and may be sent again, fal did not take.",
        REQUESTS,
        "known_request_id IS NULL AND attempt_status = 'refused'",
    ),
    Check(
        "taken_once",
        "Paid once: fal took no job a second time.",
        REQUESTS,
        "known_request_id <> id OR has_rival OR (attempt_id IS NOT NULL AND again)",
    ),
    Check(
        "billed_is_charged",
        "For a job that succeeded, fal bills what its tenant was charged.",
        REQUESTS,
        "owned AND status = 'succeeded' AND billed <> charged",
    ),
    Check(
        "billed_without_a_video",
        "fal bills nothing for a job that did not succeed.",
        REQUESTS,
        "owned AND ended AND status <> 'succeeded' AND billed > 0",
        Severity.WARNING,
    ),
    Check(
        "lost_answer_is_at_fal",
        "fal's webhook, or an operator, settles a request whose answer got lost; it is not sent again.",
        REQUESTS,
        "lost",
        Severity.WARNING,
    ),
)


async def compare(connection: AsyncConnection, page: Sequence[Taken], seen: set[UUID], tally: Tally) -> None:
    """
    Hold a *page* of fal's books beside ours.

    *seen* keeps, from page to page, the attempts that only their token led to: if it leads there again,
    fal took the job twice.
    """
    params = _params(page, seen)
    await examine(connection, CHECKS, tally, params)
    lost = text(f"SELECT attempt_id FROM ({REQUESTS.sql}) AS found WHERE lost")  # noqa: S608 - all of it is ours
    if "lost_answer_is_at_fal" in tally.findings:
        seen.update((await connection.scalars(lost, params)).all())


def _params(page: Sequence[Taken], seen: set[UUID]) -> dict[str, Any]:
    keys = [(taken.token and tokens.key_of(taken.token)) or (None, None) for taken in page]
    return {
        "request_ids": [taken.request_id for taken in page],
        "tenant_ids": [tenant_id for tenant_id, _ in keys],
        "attempt_ids": [attempt_id for _, attempt_id in keys],
        "digests": [taken.token and tokens.token_digest(taken.token) for taken in page],
        "billed": [taken.billed for taken in page],
        "seen": list(seen),
    }
