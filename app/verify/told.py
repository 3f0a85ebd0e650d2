"""Callers are told: what was to be told is written down, and what is called delivered was taken."""

from typing import Final

from app.settings import LEAST_DAYS
from app.verify.check import Check, Rows
from app.verify.words import ENDED

# Every delivery about a job beside its event; one number after the last tells that the files are safe.
DELIVERIES: Final = Rows(
    """
    SELECT d.job_id AS id, d.type, d.status, e.status AS event_status, j.safe_at, j.event_count, d.sequence,
        EXISTS (
            SELECT FROM callback_attempts a
            WHERE a.tenant_id = d.tenant_id AND a.delivery_id = d.id AND a.error IS NULL
        ) AS taken
    FROM callback_deliveries d
    LEFT JOIN jobs j ON j.tenant_id = d.tenant_id AND j.id = d.job_id
    LEFT JOIN job_events e ON e.tenant_id = d.tenant_id AND e.job_id = d.job_id AND e.number = d.sequence
    WHERE d.job_id IS NOT NULL
    """
)

# Every job that ended lately and names an address of its own, beside what was to be told there. Whatever ended
# earlier was looked at then, by one proof after another; what it had to be told may have been pruned since.
ADDRESSED: Final = Rows(
    f"""
    SELECT j.id, d.id AS delivery_id
    FROM jobs j
    LEFT JOIN callback_deliveries d ON d.tenant_id = j.tenant_id AND d.job_id = j.id AND d.url = j.callback_url
        AND d.type = 'job.' || j.status
    WHERE j.callback_url IS NOT NULL AND j.status IN {ENDED}
        AND j.finished_at > now() - interval '{LEAST_DAYS} days'
    """  # noqa: S608 - all of it is ours
)

CHECKS: Final = (
    Check(
        "ending_is_told",
        "Every job that ended within a week and names a callback_url has it to be told.",
        ADDRESSED,
        "delivery_id IS NULL",
    ),
    Check(
        "delivery_has_its_event",
        "Every delivery tells of an event of its job.",
        DELIVERIES,
        "CASE WHEN type = 'job.safe' THEN (safe_at IS NOT NULL AND sequence = event_count + 1) IS NOT TRUE"
        " ELSE type IS DISTINCT FROM 'job.' || event_status END",
    ),
    Check(
        "delivered_was_taken",
        "What is called delivered was answered with 2xx.",
        DELIVERIES,
        "status = 'delivered' AND NOT taken",
    ),
)
