"""One outcome: a job's events tell one life that the table of moves allows, and its attempts agree with it."""

from typing import Final

from app.verify.check import Check, Rows
from app.verify.words import ALLOWED, ENDED

# Every job beside its events, read in their order.
EVENTS: Final = Rows(
    f"""
    SELECT coalesce(j.id, e.job_id) AS id, j.id AS job_id, j.status, j.status IN {ENDED} AS ended,
        j.thinned_at IS NULL AS whole, j.event_count, coalesce(e.events, 0) AS events,
        e.lowest, e.highest, e.first_status, e.last_status,
        coalesce(e.endings, 0) AS endings, coalesce(e.after_endings, 0) AS after_endings,
        coalesce(e.wrong_moves, 0) AS wrong_moves
    FROM jobs j
    FULL JOIN (
        SELECT tenant_id, job_id, count(*) AS events, min(number) AS lowest, max(number) AS highest,
            max(status) FILTER (WHERE before IS NULL) AS first_status,
            max(status) FILTER (WHERE after IS NULL) AS last_status,
            count(*) FILTER (WHERE status IN {ENDED}) AS endings,
            count(*) FILTER (WHERE status IN {ENDED} AND after IS NOT NULL) AS after_endings,
            count(*) FILTER (WHERE status || '>' || after NOT IN {ALLOWED}) AS wrong_moves
        FROM (
            SELECT tenant_id, job_id, number, status, lag(status) OVER life AS before, lead(status) OVER life AS after
            FROM job_events
            -- The job first: its id tells rows apart at a glance, which a sort of millions feels.
            WINDOW life AS (PARTITION BY job_id, tenant_id ORDER BY number)
        ) AS told
        GROUP BY job_id, tenant_id
    ) AS e ON e.tenant_id = j.tenant_id AND e.job_id = j.id
    """,  # noqa: S608 - all of it is ours
    {"events": "sum(events)"},
)

# Every job beside its attempts, and beside the one that fal's request belongs to.
ATTEMPTS: Final = Rows(
    f"""
    SELECT coalesce(j.id, a.job_id) AS id, j.id AS job_id, j.status, j.status IN {ENDED} AS ended, j.attempts,
        j.fal_request_id, own.id AS own_attempt_id, own.fal_account AS own_account, j.fal_account,
        coalesce(a.made, 0) AS made, a.lowest, a.highest,
        coalesce(a.submitting, 0) AS submitting, coalesce(a.unknown, 0) AS unknown,
        coalesce(a.submitted, 0) AS submitted, coalesce(a.refused, 0) AS refused, coalesce(a.requests, 0) AS requests
    FROM jobs j
    FULL JOIN (
        SELECT tenant_id, job_id, count(*) AS made, min(number) AS lowest, max(number) AS highest,
            count(*) FILTER (WHERE status = 'submitting') AS submitting,
            count(*) FILTER (WHERE status = 'unknown') AS unknown,
            count(*) FILTER (WHERE status = 'submitted') AS submitted,
            count(*) FILTER (WHERE status = 'refused') AS refused,
            count(fal_request_id) AS requests
        FROM attempts
        GROUP BY tenant_id, job_id
    ) AS a ON a.tenant_id = j.tenant_id AND a.job_id = j.id
    LEFT JOIN attempts own
        ON own.tenant_id = j.tenant_id AND own.job_id = j.id AND own.fal_request_id = j.fal_request_id
    """,  # noqa: S608 - all of it is ours
    {"attempts": "sum(made)"},
)

CHECKS: Final = (
    Check("event_has_its_job", "Every event is about a job there is.", EVENTS, "job_id IS NULL"),
    Check(
        "events_are_numbered",
        "A job's events are numbered from 1 without a gap, and the job knows how many.",
        EVENTS,
        "job_id IS NOT NULL AND whole"
        " AND (events <> event_count OR lowest IS DISTINCT FROM 1 OR highest IS DISTINCT FROM events)",
    ),
    Check("life_begins_accepted", "A job's life begins in the queue.", EVENTS, "first_status <> 'queued'"),
    Check(
        "last_event_is_status",
        "A job's last event is its status.",
        EVENTS,
        "whole AND status IS DISTINCT FROM last_status",
    ),
    Check("only_allowed_moves", "A job moves only as the table of moves allows.", EVENTS, "wrong_moves > 0"),
    Check(
        "one_ending",
        "An ended job ended once, an unfinished one never.",
        EVENTS,
        "job_id IS NOT NULL AND whole AND endings <> CASE WHEN ended THEN 1 ELSE 0 END",
    ),
    Check("nothing_after_the_end", "Nothing happens to a job after its end.", EVENTS, "after_endings > 0"),
    Check(
        "thin_has_ended",
        "Only an ended job's events are let go, and all of them at once.",
        EVENTS,
        "NOT whole AND (events > 0 OR NOT ended)",
    ),
    Check("attempt_has_its_job", "Every attempt is at a job there is.", ATTEMPTS, "job_id IS NULL"),
    Check(
        "attempts_are_numbered",
        "A job's attempts are numbered from 1 without a gap, and the job knows how many.",
        ATTEMPTS,
        "job_id IS NOT NULL AND (made <> attempts OR (made > 0 AND (lowest <> 1 OR highest <> made)))",
    ),
    Check(
        "one_live_attempt",
        "Paid once: at most one attempt of a job may be at fal.",
        ATTEMPTS,
        "submitting + unknown + submitted > 1",
    ),
    Check(
        "one_request",
        "Paid once: fal took a job at most once.",
        ATTEMPTS,
        "requests > 1",
    ),
    Check(
        "report_has_its_attempt",
        "What fal reported on belongs to an attempt of the job.",
        ATTEMPTS,
        "(status = 'succeeded' OR fal_request_id IS NOT NULL) AND own_attempt_id IS NULL",
    ),
    Check(
        "fal_account_is_its_attempts",
        "A job counts for the fal account that has it.",
        ATTEMPTS,
        "own_account <> fal_account",
    ),
    Check(
        "failure_has_its_reason_at_fal",
        "A job failed because fal reported it, or refused it.",
        ATTEMPTS,
        "status = 'failed' AND fal_request_id IS NULL AND refused = 0",
    ),
    Check(
        "submitting_has_its_attempt",
        "A job that is being sent has the attempt written down.",
        ATTEMPTS,
        "status = 'submitting' AND submitting = 0",
    ),
    Check(
        "unknown_has_its_attempt",
        "A job whose answer got lost has the attempt it got lost for.",
        ATTEMPTS,
        "status = 'submit_unknown' AND unknown = 0",
    ),
    Check(
        "submitted_has_its_attempt",
        "A job that is at fal has an attempt that fal took.",
        ATTEMPTS,
        "status IN ('submitted', 'in_progress') AND submitted = 0",
    ),
    Check(
        "queued_has_no_attempt_at_fal",
        "A job in our queue is not at fal too.",
        ATTEMPTS,
        "status = 'queued' AND submitting + unknown + submitted > 0",
    ),
    Check(
        "end_leaves_nothing_open",
        "No attempt of an ended job is still open.",
        ATTEMPTS,
        "ended AND (submitting + unknown > 0 OR (fal_request_id IS NULL AND submitted > 0))",
    ),
)
