"""
fal took them: noted in sets.

What `lifecycle.submitted` does with one, a single statement does here with all that are plainly in order. The others
go there one by one: those that were called refused meanwhile, whose request is known to be another's, or that were to
show whether an account is open again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.callbacks import outbox
from app.callbacks.events import EventType
from app.db import Database
from app.fal.messages import Accepted
from app.jobs import accounts, lifecycle, queries
from app.jobs.callbacks import Told
from app.jobs.lifecycle import AttemptKey
from app.jobs.schedule import ask_s
from app.jobs.states import JobStatus, sources
from app.jobs.taking import Intent
from app.lines import Few, told

# Attempts before jobs, and both in the order of the attempts, so that two sets never wait for each other.
SUBMITTED: Final = f"""
    WITH told AS MATERIALIZED (
        SELECT *
        FROM json_to_recordset(%(told)s) AS told (
            tenant_id uuid, attempt_id uuid, request_id text, status_url text, response_url text, cancel_url text,
            queue_position bigint, expected_s double precision, ask_s double precision
        ) LIMIT (SELECT %(many)s)
    ), mine AS MATERIALIZED (
        SELECT told.*
        FROM attempts JOIN told ON attempts.tenant_id = told.tenant_id AND attempts.id = told.attempt_id
        ORDER BY attempts.tenant_id, attempts.id
        FOR UPDATE OF attempts
    ), attempt AS (
        UPDATE attempts
        SET status = 'submitted', fal_request_id = mine.request_id, answered_at = coalesce(answered_at, now()),
            status_url = mine.status_url, response_url = mine.response_url, cancel_url = mine.cancel_url
        FROM mine
        WHERE attempts.tenant_id = mine.tenant_id AND attempts.id = mine.attempt_id AND attempts.status <> 'refused'
            AND (attempts.fal_request_id IS NULL OR attempts.fal_request_id = mine.request_id)
            AND NOT EXISTS (
                SELECT FROM attempts AS other
                WHERE other.tenant_id = mine.tenant_id AND other.fal_request_id = mine.request_id
                    AND other.id <> mine.attempt_id
            )
        RETURNING attempts.tenant_id, attempts.id, job_id, fal_account, mine.request_id, mine.queue_position,
            mine.expected_s, mine.ask_s
    ), job AS (
        UPDATE jobs
        SET status = 'submitted', event_count = event_count + 1, fal_request_id = attempt.request_id,
            fal_account = attempt.fal_account, queue_position = attempt.queue_position, waiting_for = 'fal_queue',
            submitted_at = coalesce(submitted_at, now()),
            expected_at = now() + make_interval(secs => attempt.expected_s),
            -- A cancel that came meanwhile is passed on at once.
            due_at = now() + make_interval(secs => CASE WHEN cancel_requested_at IS NULL THEN attempt.ask_s ELSE 0 END),
            lease_owner = NULL, lease_token = lease_token + 1, tries = 0
        FROM attempt
        WHERE jobs.tenant_id = attempt.tenant_id AND jobs.id = attempt.job_id AND status = ANY(%(sources)s)
        RETURNING jobs.tenant_id, jobs.id, event_count, attempt.id AS attempt_id,
            {outbox.listeners_of("jobs", f"'{EventType.SUBMITTED}'")} AS listeners
    ), event AS (
        INSERT INTO job_events (tenant_id, job_id, number, status, why)
        SELECT tenant_id, id, event_count, 'submitted', 'fal has it' FROM job
    )
    SELECT attempt.id AS attempt_id, job.tenant_id, job.id AS job_id, listeners, now() AS at
    FROM attempt LEFT JOIN job ON job.attempt_id = attempt.id
"""  # noqa: S608 - of a constant
SOURCES: Final = sorted(sources(JobStatus.SUBMITTED))


@dataclass(frozen=True, slots=True)
class Taken:
    """What fal answered to an intent."""

    intent: Intent
    answer: Accepted

    @property
    def key(self) -> AttemptKey:
        """Names its attempt."""
        return AttemptKey(self.intent.attempt.tenant_id, self.intent.attempt.id)


async def note(db: Database, members: Sequence[Taken], *, progress_s: float, for_s: float) -> list[bool]:
    """
    Note that fal took all of *members*; for each, whether this opened its account.

    It insists for up to *for_s* seconds: nobody else knows it. Noting twice changes nothing.
    """
    plain = [member for member in members if not member.intent.probe]
    work = partial(_note_accepted, members=plain, progress_s=progress_s)
    noted = await db.insist_few(work, for_s=for_s) if plain else set()
    others = [member for member in members if member.key.id not in noted]
    if not others:
        return [False] * len(members)
    opened = await db.insist(partial(_note_each, members=others, progress_s=progress_s), for_s=for_s)
    return [opened.get(member.key.id, False) for member in members]


async def _note_accepted(ask: Few, members: Sequence[Taken], progress_s: float) -> set[UUID]:
    """Note it in one transaction; the ids of the attempts of which that was possible."""
    models = [member.intent.job.model for member in members]
    (took,) = await ask(queries.asking_typical(models))
    expected = queries.typical_in(took, models)
    asked = _asked(expected, progress_s)
    (rows,) = await ask(
        (SUBMITTED, {**told([_row(member, expected, asked) for member in members]), "sources": SOURCES})
    )
    news: list[outbox.News] = []
    if followed := {(row.tenant_id, row.job_id): row for row in rows if row.listeners}:
        (jobs,) = await ask((queries.ROWS, queries.asked(followed)))
        news = [_news(job, followed[job.tenant_id, job.id]) for job in jobs]
    await ask(*outbox.adding(news), commit=True)
    return {row.attempt_id for row in rows}


async def _note_each(session: AsyncSession, members: Sequence[Taken], progress_s: float) -> dict[UUID, bool]:
    """Note it one by one; for each attempt, whether this opened its account."""
    expected = await queries.typical(session, [member.intent.job.model for member in members])
    asked = _asked(expected, progress_s)
    opened: dict[UUID, bool] = {}
    for member in members:
        job, attempt = member.intent.job, member.intent.attempt
        opened[attempt.id] = member.intent.probe and await accounts.accepted(
            session, attempt.fal_account, sent_at=attempt.created_at
        )
        await lifecycle.submitted(
            session, member.key, member.answer, expected_s=expected[job.model], ask_s=asked[job.model]
        )
    return opened


def _asked(expected: Mapping[str, float], progress_s: float) -> dict[str, float]:
    """In how many seconds fal is asked how a job of each model goes."""
    return {model: ask_s(0, progress_s=progress_s, left_s=left_s) for model, left_s in expected.items()}


def _news(job: Any, row: Any) -> outbox.News:
    return Told(job, row.listeners, EventType.SUBMITTED, row.at, job.event_count).news()


def _row(member: Taken, expected: Mapping[str, float], asked: Mapping[str, float]) -> dict[str, Any]:
    key, answer, model = member.key, member.answer, member.intent.job.model
    return {
        "tenant_id": key.tenant_id,
        "attempt_id": key.id,
        "request_id": answer.request_id,
        "status_url": answer.status_url,
        "response_url": answer.response_url,
        "cancel_url": answer.cancel_url,
        "queue_position": answer.queue_position,
        "expected_s": expected[model],
        "ask_s": asked[model],
    }
