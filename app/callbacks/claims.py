"""Which deliveries may be sent now: due ones, endpoint by endpoint, and a job's events in their order."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from app.lines import Ask

PATIENCE: Final = timedelta(minutes=5)
"""How long a job's later event waits for an earlier one that its receiver doesn't take; then its number must tell."""


class Lane(NamedTuple):
    """Names an endpoint; each has a share of the sender's places."""

    tenant_id: UUID
    endpoint_id: UUID


@dataclass(frozen=True, slots=True)
class Parcel:
    """A delivery that is ours for a while, as its row has it, and the endpoint it goes to."""

    tenant_id: UUID
    id: UUID
    endpoint_id: UUID
    job_id: UUID | None
    body: str = field(repr=False)
    lease_token: int
    tries: int
    own_url: str | None
    """The job's own, if the endpoint is the one that stands for those."""
    endpoint_url: str | None
    secret: bytes = field(repr=False)
    old_secret: bytes | None = field(repr=False)
    old_secret_until: datetime | None
    disabled_at: datetime | None

    @property
    def lane(self) -> Lane:
        """The endpoint whose place it takes."""
        return Lane(self.tenant_id, self.endpoint_id)


# One look into the index for each endpoint, however long the line before it.
LANES: Final = """
    SELECT tenant_id, id AS endpoint_id
    FROM callback_endpoints AS endpoint
    WHERE (
            SELECT due_at FROM callback_deliveries AS d
            WHERE d.tenant_id = endpoint.tenant_id AND d.endpoint_id = endpoint.id AND due_at IS NOT NULL
            ORDER BY due_at LIMIT 1
        ) <= now()
        AND (tenant_id, id) NOT IN (
            SELECT * FROM unnest(CAST(%(tenants)s AS uuid[]), CAST(%(endpoints)s AS uuid[]))
        )
    ORDER BY random()
    LIMIT %(limit)s
"""


async def lanes(ask: Ask, *, without: Collection[Lane], limit: int) -> list[Lane]:
    """Up to *limit* endpoints that have something due, in no order, so that all get their turn; none of *without*."""
    full = {"tenants": [lane.tenant_id for lane in without], "endpoints": [lane.endpoint_id for lane in without]}
    return [Lane(*row) for row in await ask(LANES, {**full, "limit": limit})]


# An event of a job waits for those before it, but not for ever. The picking locks rows and skips those another worker
# is picking; taking one moves its due time to the end of the lease, as `leases` has it.
PARCELS: Final = """
    WITH picked AS MATERIALIZED (
        SELECT picked.tenant_id, picked.id
        FROM unnest(CAST(%(tenants)s AS uuid[]), CAST(%(endpoints)s AS uuid[]), CAST(%(rooms)s AS bigint[]))
            AS lane (tenant_id, endpoint_id, room)
        CROSS JOIN LATERAL (
            SELECT d.tenant_id, d.id
            FROM callback_deliveries AS d
            WHERE d.tenant_id = lane.tenant_id AND d.endpoint_id = lane.endpoint_id AND d.due_at <= now()
                AND NOT EXISTS (
                    SELECT FROM callback_deliveries AS earlier
                    WHERE earlier.tenant_id = d.tenant_id AND earlier.job_id = d.job_id
                        AND earlier.endpoint_id = d.endpoint_id AND earlier.sequence < d.sequence
                        AND earlier.status = 'pending' AND earlier.queued_at > now() - CAST(%(patience)s AS interval)
                )
            ORDER BY d.due_at
            LIMIT lane.room
            FOR UPDATE SKIP LOCKED
        ) AS picked
        LIMIT %(limit)s
    ), taken AS (
        UPDATE callback_deliveries AS d
        SET due_at = now() + make_interval(secs => %(lease_s)s), lease_owner = %(owner)s,
            lease_token = lease_token + 1, tries = tries + 1
        FROM picked
        WHERE d.tenant_id = picked.tenant_id AND d.id = picked.id AND d.due_at <= now()
        RETURNING d.tenant_id, d.id, d.endpoint_id, d.job_id, d.body, d.lease_token, d.tries, d.url AS own_url
    )
    SELECT taken.*, endpoint.url AS endpoint_url, secret, old_secret, old_secret_until, disabled_at
    FROM taken
    JOIN callback_endpoints AS endpoint ON endpoint.tenant_id = taken.tenant_id AND endpoint.id = taken.endpoint_id
"""


async def parcels(ask: Ask, rooms: Mapping[Lane, int], *, owner: str, limit: int, lease_s: float) -> list[Parcel]:
    """
    Up to *limit* due deliveries, now *owner*'s, and of each lane as many as *rooms* says.

    None whose job has an earlier one still to be told.
    """
    wanted = {
        "tenants": [lane.tenant_id for lane in rooms],
        "endpoints": [lane.endpoint_id for lane in rooms],
        "rooms": list(rooms.values()),
        "patience": PATIENCE,
        "limit": limit,
        "owner": owner,
        "lease_s": lease_s,
    }
    return [Parcel(*row) for row in await ask(PARCELS, wanted)]
