"""
What there is to watch for. A kind is an entry: what it is called, what to do about it, and the query that sees it.

A query returns (subject, since, until, jobs, amount, detail), a row for each subject in trouble and none if all is
well. It is run every few seconds over any number of jobs, so it reads by an index and stops at MOST rows. `:dismissed`
is the time up to which an operator has dismissed this kind's facts where it has a single subject, ''.
"""

from dataclasses import dataclass
from typing import Final

MOST: Final = 10_000
"""Jobs counted for one incident; beyond, it is told as "at least"."""
SHOWN: Final = 5
"""Jobs named in an incident, oldest trouble first."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of trouble: *todo* tells an operator, by its command, how to end it."""

    name: str
    title: str
    todo: str
    sql: str


def _jobs(facts: str) -> str:
    """One incident for all jobs of *facts*, a SELECT of (job_id, at, amount): `at` is when each got into trouble."""
    return f"""
        SELECT '' AS subject, min(at) AS since, max(latest) AS until, count(*) AS jobs, sum(amount) AS amount,
            jsonb_build_object(
                'jobs', to_jsonb((array_agg(job_id ORDER BY at, job_id))[1:{SHOWN}]),
                'at_least', sum(facts) = {MOST}
            ) AS detail
        FROM (
            SELECT job_id, min(at) AS at, max(at) AS latest, max(amount) AS amount, count(*) AS facts
            FROM ({facts} LIMIT {MOST}) AS found GROUP BY job_id
        ) AS jobs
        HAVING count(*) > 0
    """  # noqa: S608 - all of it is ours


KINDS: Final = (
    Kind(
        "submit_unknown",
        "fal's answer to a submit got lost",
        "Nobody knows yet whether fal has these jobs; their money stays held and nothing is sent again. Look for them"
        " at fal.ai/dashboard, then: callsheet jobs resolve JOB --accepted REQUEST_ID, or --not-accepted --reason WHY.",
        # A quarter of an hour for the webhook, or fal's history, to tell.
        _jobs("""
            SELECT j.id AS job_id, a.answered_at AS at, j.quoted AS amount
            FROM jobs j
            JOIN attempts a ON a.tenant_id = j.tenant_id AND a.job_id = j.id AND a.status = 'unknown'
            WHERE j.status = 'submit_unknown' AND a.answered_at > :dismissed
                AND a.answered_at < now() - interval '15 minutes'
        """),
    ),
    Kind(
        "overdue",
        "fal hasn't finished what it took",
        "These jobs take more than an hour, and five times as long as usual: neither a webhook nor asking fal brought"
        " an end, or fal no longer knows them. See callsheet jobs show JOB, then ask fal's support for its request."
        " callsheet jobs cancel JOB asks fal to stop. Their money stays held until fal says how they ended.",
        _jobs("""
            SELECT id AS job_id, at, amount
            FROM (
                SELECT id, quoted AS amount, submitted_at
                    + greatest(interval '1 hour', 5 * coalesce(expected_at - submitted_at, interval '0')) AS at
                FROM jobs WHERE status IN ('submitted', 'in_progress')
            ) AS at_fal
            WHERE at < now() AND at > :dismissed
        """),
    ),
    Kind(
        "hanging",
        "Nobody takes the next step",
        "fal has these jobs, or may have them, and has not been asked about them for more than a quarter of an hour:"
        " no worker runs, or there is far more to do than they get done. Start one, or more: callsheet work.",
        _jobs("""
            SELECT id AS job_id, due_at AS at, quoted AS amount FROM jobs
            WHERE status IN ('submitting', 'submit_unknown', 'submitted', 'in_progress')
                AND due_at < now() - interval '15 minutes' AND due_at > :dismissed
        """),
    ),
    Kind(
        "backlog",
        "Jobs have long been waiting to be sent",
        "These jobs have been ready for more than an hour, and not sent: an account is locked or at its cap"
        " (callsheet fal), a tenant or model is at its cap (callsheet tenants list), or no worker runs. callsheet jobs"
        " show JOB says what one waits for.",
        _jobs("""
            SELECT id AS job_id, due_at AS at, quoted AS amount FROM jobs
            WHERE status = 'queued' AND due_at < now() - interval '1 hour' AND due_at > :dismissed
        """),
    ),
    Kind(
        "account_locked",
        "fal takes nothing on this account",
        "fal says that the account is locked, most often for want of balance, or refuses its key (callsheet fal). Top"
        " it up at fal.ai/dashboard/billing, or set another key. The jobs stay queued with their money held; one is let"
        " through every few minutes, and when fal takes it the rest follow.",
        f"""
            SELECT name AS subject, since, since AS until, jobs, amount,
                jsonb_build_object('why', locked_why, 'said', locked_detail, 'at_least', jobs = {MOST}) AS detail
            FROM fal_accounts, LATERAL (
                SELECT count(*) AS jobs, coalesce(sum(quoted), 0) AS amount
                FROM (SELECT quoted FROM jobs WHERE status = 'queued' LIMIT {MOST}) AS queued
            ) AS waiting
            WHERE locked_why IS NOT NULL
        """,  # noqa: S608 - all of it is ours
    ),
    Kind(
        "dead_letters",
        "Callbacks were given up",
        "This endpoint of a caller took none of its callbacks for a day, or was disabled. Tell its owner (callsheet"
        " tenants list names the tenant). Once it is"
        " mended: PATCH /v1/endpoints/{id} enables it, POST /v1/deliveries/replay to send them again.",
        f"""
            SELECT CAST(endpoint_id AS text) AS subject, min(queued_at) AS since, max(queued_at) AS until,
                count(DISTINCT job_id) AS jobs, 0 AS amount,
                jsonb_build_object('tenant', tenant_id, 'deliveries', count(*), 'at_least', count(*) = {MOST}) AS detail
            FROM (
                SELECT tenant_id, endpoint_id, queued_at, job_id FROM callback_deliveries
                WHERE status = 'dead' LIMIT {MOST}
            ) AS dead
            GROUP BY tenant_id, endpoint_id
        """,  # noqa: S608 - all of it is ours
    ),
    Kind(
        "rescue_failed",
        "A result couldn't be kept",
        "A file of these finished jobs was given up: it is in no storage of yours, and fal's copy vanishes. See why,"
        " and fal's address for it, with callsheet jobs show JOB --json; save it by hand if it is still there."
        " Then: callsheet incidents dismiss INCIDENT --reason WHY.",
        # The last half minute is left out: a commit that is still under way may belong into it.
        _jobs("""
            SELECT j.id AS job_id, o.given_up_at AS at, j.charged AS amount
            FROM outputs o
            JOIN jobs j ON j.tenant_id = o.tenant_id AND j.id = o.job_id
            WHERE o.given_up_at > :dismissed AND o.given_up_at < now() - interval '30 seconds'
                AND o.due_at IS NULL AND o.safe_at IS NULL
            ORDER BY o.given_up_at
        """),
    ),
    Kind(
        "rescue_late",
        "A result is about to vanish",
        "fal deletes these files within a day, and no copy is safe yet. See why with callsheet jobs show JOB --json;"
        " most often the storage is full or away (STORAGE_URL), or no worker runs: callsheet work.",
        # Files that vanish within the day are no trouble in their first minutes.
        _jobs("""
            SELECT j.id AS job_id, greatest(o.vanishes_at - interval '1 day', o.created_at) AS at, j.charged AS amount
            FROM outputs o
            JOIN jobs j ON j.tenant_id = o.tenant_id AND j.id = o.job_id
            WHERE o.due_at IS NOT NULL AND o.vanishes_at < now() + interval '1 day'
                AND o.created_at < now() - interval '5 minutes'
                AND greatest(o.vanishes_at - interval '1 day', o.created_at) > :dismissed
            ORDER BY o.vanishes_at
        """),
    ),
    Kind(
        "verify_failed",
        "A promise is broken",
        "The daily proof found rows that break the promise named here. Run callsheet verify to see all of them; if it"
        " finds none any more, the next proof closes this.",
        """
            SELECT failure.key AS subject, CAST(value ->> 'since' AS timestamptz) AS since,
                CAST(value ->> 'changed' AS timestamptz) AS until, CAST(value ->> 'count' AS bigint) AS jobs,
                0 AS amount, jsonb_build_object('found', value -> 'examples') AS detail
            FROM chores, jsonb_each(result -> 'failures') AS failure
            WHERE chores.name = 'verify'
        """,
    ),
    Kind(
        "chore_failed",
        "A chore fails again and again",
        "What a worker does every so often, named here, has failed each time since then: look for chore_failed in the"
        " log of callsheet work.",
        """
            SELECT name AS subject, coalesce(done_at, created_at) AS since, coalesce(done_at, created_at) AS until,
                0 AS jobs, 0 AS amount, jsonb_build_object('tries', tries) AS detail
            FROM chores WHERE tries > 4
        """,
    ),
)
