"""Statuses and moves as SQL has them, from the one table of moves."""

from typing import Final

from app.jobs.states import ENDINGS, MOVES

ENDED: Final = "({})".format(", ".join(f"'{status}'" for status in sorted(ENDINGS)))
"""The endings, to be used as `status IN …`."""
ALLOWED: Final = "({})".format(
    ", ".join(
        sorted(f"'{status}>{after}'" for status, targets in MOVES.items() if targets for after in {status, *targets})
    )
)
"""
Every allowed move, to be used as `status || '>' || after IN …`; staying is one, while a job is unfinished: a
wish to cancel it or an operator's word is an event, too.
"""
