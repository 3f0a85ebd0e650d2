"""What a check is, and how several of them look at the same rows in one go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from itertools import groupby
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

EXAMPLES: Final = 20


class Severity(StrEnum):
    """What a finding means: a promise is broken, or somebody has to decide something."""

    FAILURE = "failure"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Rows:
    """
    What several checks look at: one SELECT, whose rows have an `id`, read once for all of them.

    *counts* are aggregates over the rows that say how much was looked at.
    """

    sql: str
    counts: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Check:
    """A *promise* that holds as long as there is no row of *rows* for which *wrong* is true."""

    name: str
    promise: str
    rows: Rows
    wrong: str
    severity: Severity = Severity.FAILURE


@dataclass(slots=True)
class Finding:
    """How often a check's promise is broken, and by what: the first few ids."""

    check: Check
    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Tally:
    """What was looked at, and what was found."""

    counts: dict[str, Decimal] = field(default_factory=dict)
    findings: dict[str, Finding] = field(default_factory=dict)


async def examine(
    connection: AsyncConnection, checks: Sequence[Check], tally: Tally, params: Mapping[str, Any] | None = None
) -> None:
    """
    Ask all *checks*, those about the same rows with one query, and add what they find to *tally*.

    Only numbers come back from a healthy database, and never more than the first few ids.
    """
    for rows, group in groupby(checks, key=lambda check: check.rows):
        about = list(group)
        wanted = [f"count(*) FILTER (WHERE {check.wrong})" for check in about] + list(rows.counts.values())
        query = text(f"SELECT {', '.join(wanted)} FROM ({rows.sql}) AS found")  # noqa: S608 - all of it is ours
        found = (await connection.execute(query, params)).one()
        for name, value in zip(rows.counts, found[len(about) :], strict=True):
            tally.counts[name] = tally.counts.get(name, Decimal(0)) + Decimal(value or 0)
        for check, count in zip(about, found, strict=False):
            if count:
                finding = tally.findings.setdefault(check.name, Finding(check))
                finding.count += count
                finding.examples += await _examples(connection, check, EXAMPLES - len(finding.examples), params)


async def _examples(
    connection: AsyncConnection, check: Check, limit: int, params: Mapping[str, Any] | None
) -> list[str]:
    if limit == 0:
        return []
    wrong = f"SELECT id FROM ({check.rows.sql}) AS found WHERE {check.wrong} ORDER BY id LIMIT {limit}"  # noqa: S608
    return [str(found) for found in (await connection.scalars(text(wrong), params)).all()]
