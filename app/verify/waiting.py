"""Nothing hangs unseen: every unfinished job has a next step that isn't long overdue, or needs somebody's word."""

from typing import Final

from app.verify.check import Check, Rows, Severity
from app.verify.words import ENDED

UNFINISHED: Final = Rows(
    f"SELECT id, status, due_at FROM jobs WHERE status NOT IN {ENDED}",  # noqa: S608 - all of it is ours
    {"unfinished": "count(*)"},
)

CHECKS: Final = (
    Check(
        "has_a_next_step",
        "Every unfinished job has a next step, and a time for it.",
        UNFINISHED,
        "due_at IS NULL AND status <> 'submit_unknown'",
    ),
    Check(
        "moves_in_time",
        "No job that fal has, or may have, is long past the time of its next step.",
        UNFINISHED,
        "status <> 'queued' AND due_at < now() - make_interval(secs => :overdue_s)",
    ),
    Check(
        "is_sent_in_time",
        "No job is ready for long without being sent; caps, a locked account or too few workers make it wait.",
        UNFINISHED,
        "status = 'queued' AND due_at < now() - make_interval(secs => :overdue_s)",
        Severity.WARNING,
    ),
    Check(
        "needs_a_verdict",
        "A submit whose answer got lost is settled by fal's word or an operator's; until then its hold stays.",
        UNFINISHED,
        "status = 'submit_unknown'",
        Severity.WARNING,
    ),
)
