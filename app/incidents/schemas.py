"""What operators see of incidents."""

from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app import money
from app.incidents.kinds import KINDS
from app.incidents.tables import Incident

KNOWN = {kind.name: kind for kind in KINDS}
EXAMPLE: dict[str, Any] = {
    "id": "0197a2b8-6c4e-7d31-9f00-3a5f0c1d2e4b",
    "kind": "submit_unknown",
    "subject": "",
    "title": "fal's answer to a submit got lost",
    "todo": "callsheet jobs resolve JOB …",
    "opened_at": "2026-11-22T14:31:40Z",
    "since": "2026-11-22T14:16:12Z",
    "last_seen_at": "2026-11-22T15:02:25Z",
    "closed_at": None,
    "jobs": 2,
    "amount": "4.20",
    "detail": {"jobs": ["0197a2b8-6c4e-7d31-9f00-3a5f0c1d2e4b"], "at_least": False},
    "dismissed": None,
}


class Dismissal(BaseModel):
    """Who ended an incident by decision, and why."""

    at: datetime
    by: str = Field(description="The API key, or the user at a terminal")
    reason: str


class IncidentView(BaseModel):
    """Something that needs a person, or did."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    id: str
    kind: str = Field(description="Stable word for the kind of trouble")
    subject: str = Field(description="What exactly is in trouble; empty if there is one incident for all")
    title: str = Field(description="The kind of trouble in one line")
    todo: str = Field(description="What to do about it")
    opened_at: datetime
    since: datetime = Field(description="When the trouble began")
    last_seen_at: datetime = Field(description="When it was last seen to be there")
    closed_at: datetime | None = Field(description="When it was gone, or dismissed; null while it is open")
    jobs: int = Field(description="How many jobs are in it")
    amount: str = Field(description="Money at stake, in USD: held for unfinished jobs, charged for finished ones")
    detail: dict[str, Any] = Field(
        description="Facts by kind: `jobs` names the first five, `at_least` says that there are more than were counted"
    )
    dismissed: Dismissal | None = Field(description="An operator's decision that ended it, if one did")

    @classmethod
    def of(cls, incident: Incident) -> Self:
        """*incident* as operators see it."""
        kind = KNOWN.get(incident.kind)
        dismissed = None
        if incident.dismissed_at is not None:
            dismissed = Dismissal(
                at=incident.dismissed_at.astimezone(UTC),
                by=incident.dismissed_by or "",
                reason=incident.dismissed_why or "",
            )
        return cls(
            id=str(incident.id),
            kind=incident.kind,
            subject=incident.subject,
            # A kind may be of another version than this one.
            title=kind.title if kind else incident.kind,
            todo=kind.todo if kind else "",
            opened_at=incident.opened_at.astimezone(UTC),
            since=incident.since.astimezone(UTC),
            last_seen_at=incident.last_seen_at.astimezone(UTC),
            closed_at=incident.closed_at and incident.closed_at.astimezone(UTC),
            jobs=incident.jobs,
            amount=money.to_text(incident.amount),
            detail=incident.detail,
            dismissed=dismissed,
        )


class IncidentPage(BaseModel):
    """Incidents, the open ones first, and whether somebody watches for them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "data": [EXAMPLE],
                    "next_cursor": None,
                    "watching": True,
                    "watched_at": "2026-11-22T15:02:25Z",
                    "blind": [],
                }
            ]
        }
    )

    data: list[IncidentView]
    next_cursor: str | None = Field(description="Give it as `cursor` to get the next page; null on the last")
    watching: bool = Field(
        description="False if no worker has watched lately: then incidents may be missing, and closed ones be open"
    )
    watched_at: datetime | None = Field(description="When incidents were last watched for")
    blind: list[str] = Field(description="Kinds that couldn't be watched for then")


class Reason(BaseModel):
    """Why an incident is dismissed."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"reason": "The customer has the file; saved by hand."}]}
    )

    reason: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500, pattern=r"^[^\x00]*$")
    ] = Field(description="Kept with the incident")
