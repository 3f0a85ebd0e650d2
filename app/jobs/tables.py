"""
Rows: Job, Attempt, JobEvent, WebhookDelivery, FalAccount.

The constraints carry the promises: a status that contradicts its columns, a second live attempt, a
charge above the quote or a repeated idempotency key is refused by Postgres, whatever the code does.
"""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Numeric,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.billing.tables import MONEY
from app.db import Base, new_id
from app.jobs.states import ENDINGS, AttemptStatus, JobStatus
from app.leases import Leased
from app.settings import DEFAULT


def _in(*values: str) -> str:
    return "(" + ", ".join(f"'{value}'" for value in sorted(values)) + ")"


ENDED = f"status IN {_in(*ENDINGS)}"
AT_FAL = "status IN ('submitting', 'submit_unknown', 'submitted', 'in_progress')"


class Job(Leased, Base):
    """One order and what became of it."""

    __tablename__ = "jobs"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.tenant_id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    api_key_id: Mapped[UUID | None]
    browser_token_id: Mapped[UUID | None]

    model: Mapped[str]
    input: Mapped[dict[str, Any]]
    labels: Mapped[dict[str, Any]] = mapped_column("metadata", server_default="{}")
    end_user: Mapped[str | None]
    priority: Mapped[int] = mapped_column(default=1, server_default="1")
    idempotency_key: Mapped[str | None]
    order_digest: Mapped[bytes]
    retry_of: Mapped[UUID | None]
    callback_url: Mapped[str | None]

    status: Mapped[str] = mapped_column(default=JobStatus.QUEUED)
    waiting_for: Mapped[str | None]
    output: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    # The account of the attempt that fal has, or had last; kept here too, so that one index counts what is at fal.
    fal_account: Mapped[str] = mapped_column(default=DEFAULT, server_default=DEFAULT)
    event_count: Mapped[int] = mapped_column(default=0, server_default="0")
    fal_request_id: Mapped[str | None]
    queue_position: Mapped[int | None]

    seconds: Mapped[Decimal] = mapped_column(Numeric(12, 3))
    measured: Mapped[bool] = mapped_column(default=False, server_default="false")
    min_seconds: Mapped[Decimal] = mapped_column(Numeric(12, 3), default=0, server_default="0")
    step_seconds: Mapped[Decimal] = mapped_column(Numeric(12, 3), default=0, server_default="0")
    price_per_second: Mapped[Decimal] = mapped_column(MONEY)
    base_amount: Mapped[Decimal] = mapped_column(MONEY, default=0, server_default="0")
    base_seconds: Mapped[Decimal] = mapped_column(Numeric(12, 3), default=0, server_default="0")
    quoted: Mapped[Decimal] = mapped_column(MONEY)
    charged: Mapped[Decimal | None] = mapped_column(MONEY)
    charged_seconds: Mapped[Decimal | None] = mapped_column(Numeric(12, 3))

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    run_after: Mapped[datetime | None]
    deadline_at: Mapped[datetime | None]
    submitted_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    expected_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    safe_at: Mapped[datetime | None]
    safe_error: Mapped[dict[str, Any] | None]
    measured_seconds: Mapped[Decimal | None] = mapped_column(Numeric(12, 3))
    thinned_at: Mapped[datetime | None]
    """When input, output and events were let go; `thinning` says what stays."""

    __table_args__ = (
        UniqueConstraint("tenant_id", "idempotency_key"),
        ForeignKeyConstraint(["tenant_id", "retry_of"], ["jobs.tenant_id", "jobs.id"]),
        # A job is retried once, however often that is asked for; to go on, the retry is retried.
        Index("uq_jobs_retry_of", "tenant_id", "retry_of", unique=True, postgresql_where=text("retry_of IS NOT NULL")),
        CheckConstraint(f"status IN {_in(*JobStatus)}", name="status_known"),
        CheckConstraint(f"({ENDED}) = (finished_at IS NOT NULL)", name="ended_has_finish"),
        CheckConstraint(f"({ENDED}) = (charged IS NOT NULL)", name="ended_has_charge"),
        CheckConstraint(f"NOT ({ENDED}) OR (due_at IS NULL AND waiting_for IS NULL)", name="ended_is_not_due"),
        CheckConstraint("(status = 'succeeded') = (output IS NOT NULL)", name="succeeded_has_output"),
        CheckConstraint("status <> 'failed' OR error IS NOT NULL", name="failed_has_error"),
        CheckConstraint(
            "status NOT IN ('submitted', 'in_progress', 'succeeded') OR submitted_at IS NOT NULL",
            name="at_fal_was_submitted",
        ),
        CheckConstraint("status <> 'in_progress' OR started_at IS NOT NULL", name="in_progress_was_started"),
        CheckConstraint("status <> 'submitting' OR attempts > 0", name="submitting_has_attempt"),
        CheckConstraint("charged >= 0 AND charged <= quoted", name="charge_within_quote"),
        CheckConstraint("charged = 0 OR status = 'succeeded'", name="only_success_is_charged"),
        CheckConstraint(
            "charged_seconds IS NULL OR charged = round(base_amount"
            " + greatest(charged_seconds - base_seconds, 0) * price_per_second, 6)",
            name="charge_is_seconds_times_price",
        ),
        CheckConstraint(
            "quoted = round(base_amount + greatest(seconds - base_seconds, 0) * price_per_second, 6)",
            name="quote_is_seconds_times_price",
        ),
        CheckConstraint(
            "(safe_at IS NULL AND safe_error IS NULL) OR status = 'succeeded'", name="only_success_is_kept"
        ),
        CheckConstraint("safe_at IS NULL OR safe_error IS NULL", name="safe_has_no_error"),
        CheckConstraint("measured_seconds > 0", name="measured_not_zero"),
        CheckConstraint("thinned_at IS NULL OR finished_at IS NOT NULL", name="only_ended_is_thinned"),
        CheckConstraint("priority BETWEEN 0 AND 2", name="priority_known"),
        CheckConstraint("seconds > 0 AND price_per_second >= 0 AND base_amount >= 0", name="price_not_negative"),
        # What each loop of the worker looks for, and nothing it would have to step over.
        Index("ix_jobs_lanes", "tenant_id", "model", "priority", "due_at", postgresql_where=text("status = 'queued'")),
        Index("ix_jobs_at_fal", "tenant_id", "model", "fal_account", postgresql_where=text(AT_FAL)),
        Index("ix_jobs_due_to_ask", "due_at", postgresql_where=text(AT_FAL)),
        Index(
            "ix_jobs_deadline",
            "deadline_at",
            postgresql_where=text("status = 'queued' AND deadline_at IS NOT NULL"),
        ),
        Index("ix_jobs_status", "tenant_id", "status", "id"),
        Index("ix_jobs_model", "tenant_id", "model", "id"),
        Index("ix_jobs_end_user", "tenant_id", "end_user", "id", postgresql_where=text("end_user IS NOT NULL")),
        Index(
            "ix_jobs_metadata",
            "metadata",
            postgresql_using="gin",
            postgresql_ops={"metadata": "jsonb_path_ops"},
            postgresql_where=text("metadata <> '{}'"),
        ),
        Index("ix_jobs_recent_by_model", "model", "finished_at", postgresql_where=text("status = 'succeeded'")),
        # What may get thin, oldest first; what was given up never does, so nobody steps over it.
        Index(
            "ix_jobs_whole",
            "finished_at",
            postgresql_where=text("finished_at IS NOT NULL AND thinned_at IS NULL AND safe_error IS NULL"),
        ),
    )


class Attempt(Base):
    """One try to hand a job to fal, written down before a byte of it is sent."""

    __tablename__ = "attempts"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    job_id: Mapped[UUID]
    number: Mapped[int]
    token_digest: Mapped[bytes]
    status: Mapped[str] = mapped_column(default=AttemptStatus.SUBMITTING)
    fal_account: Mapped[str] = mapped_column(default=DEFAULT, server_default=DEFAULT)
    fal_request_id: Mapped[str | None]
    status_url: Mapped[str | None]
    response_url: Mapped[str | None]
    cancel_url: Mapped[str | None]
    cancel_answer: Mapped[str | None]
    error: Mapped[dict[str, Any] | None]
    sent_urls: Mapped[dict[str, Any] | None]
    """For each of our own addresses in the job's input, the one that fal was told; null while nothing can be sent."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    answered_at: Mapped[datetime | None]

    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "job_id"], ["jobs.tenant_id", "jobs.id"]),
        UniqueConstraint("tenant_id", "job_id", "number"),
        UniqueConstraint("tenant_id", "fal_request_id"),
        CheckConstraint(f"status IN {_in(*AttemptStatus)}", name="status_known"),
        CheckConstraint("status <> 'submitted' OR fal_request_id IS NOT NULL", name="submitted_has_request"),
        CheckConstraint("octet_length(token_digest) = 32", name="token_digest_is_sha256"),
        # A request of fal's belongs to one attempt, whoever's it is; tenants share the fal account.
        Index("ix_attempts_fal_request_id", "fal_request_id"),
        # Paid once: while one attempt may be at fal, no second can be written down.
        Index(
            "uq_attempts_one_live",
            "tenant_id",
            "job_id",
            unique=True,
            postgresql_where=text("status IN ('submitting', 'unknown', 'submitted')"),
        ),
    )


class JobEvent(Base):
    """Something that happened to a job, numbered per job."""

    __tablename__ = "job_events"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    job_id: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str]
    why: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    # Lets the list of all jobs' events go only as far as every transaction is over; `news` says why.
    transaction_id: Mapped[int] = mapped_column(server_default=text("(pg_current_xact_id()::text)::bigint"))

    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "job_id"], ["jobs.tenant_id", "jobs.id"]),
        Index("ix_job_events_transaction_id", "tenant_id", "transaction_id", "job_id", "number"),
        CheckConstraint(f"status IN {_in(*JobStatus)}", name="status_known"),
        CheckConstraint("number > 0", name="number_positive"),
    )


class WebhookDelivery(Base):
    """
    The inbox: what came to the webhook door, raw, and what was made of it.

    Not a tenant's row: what is refused belongs to nobody. A repeat of the same bytes with the same
    verdict only raises `deliveries`, so a flood of them stays one row.
    """

    __tablename__ = "webhook_inbox"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    digest: Mapped[bytes]
    verdict: Mapped[str]
    headers: Mapped[dict[str, Any]]
    body: Mapped[bytes]
    body_size: Mapped[int]
    request_id: Mapped[str | None]
    tenant_id: Mapped[UUID | None]
    attempt_id: Mapped[UUID | None]
    deliveries: Mapped[int] = mapped_column(default=1, server_default="1")
    received_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_received_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        UniqueConstraint("digest"),
        CheckConstraint("octet_length(digest) = 32", name="digest_is_sha256"),
        Index("ix_webhook_inbox_received_at", "received_at"),
    )


class FalAccount(Base):
    """
    What workers know in common of a fal account: whether it takes requests, and whose turn it is.

    A round of dispatch locks these rows, in the order of their names, so one worker chooses at a time.
    """

    __tablename__ = "fal_accounts"

    name: Mapped[str] = mapped_column(primary_key=True)
    turn: Mapped[UUID | None]
    """The tenant that was served last; the next round begins after it."""
    since: Mapped[datetime] = mapped_column(server_default=func.now())
    """Since when it is locked, or open."""
    locked_why: Mapped[str | None]
    locked_detail: Mapped[str | None]
    probe_at: Mapped[datetime | None]
    probes: Mapped[int] = mapped_column(default=0, server_default="0")
    """Jobs let through since it was locked, to see whether it is open again."""

    __table_args__ = (
        CheckConstraint("locked_why IN ('account_locked', 'key_refused')", name="locked_why_known"),
        CheckConstraint("(locked_why IS NULL) = (probe_at IS NULL)", name="locked_is_probed"),
    )
