"""What operators see of a proof."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from app import money
from app.verify.check import Finding, Severity
from app.verify.verifier import Report

AMOUNTS = ("billed", "charged", "cents_off")
EXAMPLE_REPORT: dict[str, Any] = {
    "ok": True,
    "at": "2026-11-22T14:31:40Z",
    "took_s": 0.4,
    "checked": {
        "checks": 34,
        "accounts": 2,
        "entries": 397,
        "jobs": 200,
        "events": 985,
        "attempts": 201,
        "unfinished": 5,
        "requests_at_fal": None,
        "billed": None,
        "charged": None,
        "cents_off": None,
    },
    "findings": [
        {
            "check": "needs_a_verdict",
            "promise": "A submit whose answer got lost is settled by fal's word or an operator's; until then its hold"
            " stays.",
            "severity": "warning",
            "count": 1,
            "examples": ["0197a2b8-6c4e-7d31-9f00-3a5f0c1d2e4b"],
        }
    ],
}


class Checked(BaseModel):
    """How much was looked at; what is null wasn't, because fal's books weren't asked for."""

    checks: int = Field(description="How many checks were asked")
    accounts: int
    entries: int = Field(description="Movements in the ledger")
    jobs: int
    events: int
    attempts: int
    unfinished: int = Field(description="Jobs that have not ended")
    requests_at_fal: int | None = Field(default=None, description="Requests on fal's books")
    billed: str | None = Field(default=None, description="What fal bills for them, in USD")
    charged: str | None = Field(default=None, description="What was charged for the same, in USD")
    cents_off: str | None = Field(
        default=None, description="By how many cents bill and charge differ, over all jobs that succeeded"
    )


class FindingView(BaseModel):
    """A promise that is broken, or waits for somebody's decision."""

    check: str = Field(description="Stable name of the check", examples=["account_is_its_entries"])
    promise: str = Field(description="What should hold", examples=["Every account's sides are the sum of its entries."])
    severity: Severity = Field(description="`failure`: a promise is broken; `warning`: it is known and explained")
    count: int = Field(description="How often", examples=[1])
    examples: list[str] = Field(description="Ids of the first twenty: of jobs, accounts, or requests at fal")

    @classmethod
    def of(cls, finding: Finding) -> Self:
        """*finding* as operators see it."""
        check = finding.check
        return cls(
            check=check.name,
            promise=check.promise,
            severity=check.severity,
            count=finding.count,
            examples=finding.examples,
        )


class ReportView(BaseModel):
    """Whether every promise holds, as of one moment of the database."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_REPORT]})

    ok: bool = Field(description="True if there is nothing worse than warnings")
    at: datetime = Field(description="The moment of the database that was looked at")
    took_s: float
    checked: Checked
    findings: list[FindingView]

    @classmethod
    def of(cls, report: Report) -> Self:
        """*report* as operators see it."""
        counts: dict[str, Any] = {
            name: money.to_text(_short(count)) if name in AMOUNTS else int(count)
            for name, count in report.counts.items()
        }
        return cls(
            ok=report.ok,
            at=report.at.astimezone(UTC),
            took_s=round(report.took_s, 3),
            checked=Checked(checks=report.checks, **counts),
            findings=[FindingView.of(finding) for finding in report.findings],
        )


def _short(amount: Decimal) -> Decimal:
    """*amount* without the zeros that a column of ten decimals adds."""
    return amount.normalize() if amount else Decimal(0)
