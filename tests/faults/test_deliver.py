"""
The step "deliver", a callback to a caller × each thing that can go wrong there, with real processes.

After each case the callback was told at least once: every time the same bytes under the same id, signed, and numbered
by the job's event. How often is part of the case: a receiver hears again what we can't know that it heard.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import pytest

from app.callbacks.signing import shown
from tests.callbacks.receiver import Receiver, receiving
from tests.faults.cases import PAID, Case, also_slow, assert_ends, begin
from tests.faults.proxy import Faults, Way
from tests.faults.stage import Stage, until

pytestmark = pytest.mark.timeout(240)

ONCE: Final = frozenset({1})
AGAIN: Final = frozenset({2})
KILLS: Final = {
    "parcels:before_commit": ONCE,
    "parcels:after_commit": ONCE,
    "callback:before_call": ONCE,
    "callback:sent": AGAIN,
    "callback:answered": AGAIN,
    "delivered:before_commit": AGAIN,
    "delivered:after_commit": ONCE,
}
LEASE_S: Final = 60
PATIENT: Final = {"CALLBACK_TIMEOUT_S": "25", "LEASE_S": str(LEASE_S)}
"""For cases in which no receiver is to be too slow, however busy the machine is."""
COMMITS: Final = ("parcels", "delivered")
DONE: Final = {
    "parcels": "SELECT FROM callback_deliveries WHERE lease_token > 0",
    "delivered": "SELECT FROM callback_deliveries WHERE status = 'delivered'",
}
Ordered = asyncio.Task[str | None]


@dataclass
class Caller:
    """Who is to be told: an endpoint of the tenant, and the receiver behind it."""

    stage: Stage
    receiver: Receiver

    async def begin(self, points: dict[str, str], process: str = "worker", **environment: str) -> Ordered:
        """Start both processes, *process* with these *points* and settings, and order a video to be told of."""
        await self.stage.rows(
            "INSERT INTO callback_endpoints (tenant_id, id, url, events, secret)"
            f" SELECT id, gen_random_uuid(), '{self.receiver.url}', '{{job.succeeded}}', sha256('secret')"
            " FROM tenants RETURNING id"
        )
        return await begin(self.stage, Case(process, ""), {**self.stage.points(points), **environment})

    async def lease_ends(self) -> None:
        """Let LEASE_S go by for all that a dead worker had taken."""
        for table in ("callback_deliveries", "outputs"):
            ended = f"due_at = due_at - interval '{LEASE_S} s' WHERE due_at IS NOT NULL"
            await self.stage.rows(f"UPDATE {table} SET {ended} RETURNING due_at")

    async def assert_told(self, ordered: Ordered, times: frozenset[int]) -> None:
        """At rest the job has succeeded, and this was told as often as one of *times*."""
        await assert_ends(self.stage, ordered, PAID)
        await self.over("delivered")
        (row,) = await self.stage.rows(
            "SELECT d.id::text, d.body, d.sequence, e.secret, j.id::text, j.event_count FROM callback_deliveries d"
            " JOIN callback_endpoints e ON e.id = d.endpoint_id JOIN jobs j ON j.id = d.job_id"
        )
        delivery_id, body, sequence, secret, job_id, events = row
        assert len(self.receiver.got) in times
        for got in self.receiver.got:
            told = got.verified(shown(secret))
            assert (got.headers["webhook-id"], got.body.decode()) == (delivery_id, body)
            assert (told["type"], told["data"]["job"]["id"]) == ("job.succeeded", job_id)
            assert told["data"]["sequence"] == sequence == events
        (tries,) = await self.stage.rows("SELECT count(*) FROM callback_attempts WHERE error IS NULL")
        assert tries == (1,)

    async def over(self, status: str) -> None:
        """Wait until nothing is to be told any more, and see that the one delivery is in *status*."""

        async def over() -> bool:
            return not await self.stage.rows("SELECT FROM callback_deliveries WHERE due_at IS NOT NULL")

        await until(over)
        assert await self.stage.rows("SELECT status FROM callback_deliveries") == [(status,)]


@pytest.fixture
async def caller(stage: Stage) -> AsyncIterator[Caller]:
    async with receiving() as receiver:
        yield Caller(stage, receiver)


@pytest.mark.parametrize("point", also_slow(*KILLS, quick=("delivered:before_commit",)))
async def test_the_worker_is_killed(stage, caller, point):
    ordered = await caller.begin({point: "kill"}, **PATIENT)

    await stage.worker.died()
    assert (stage.folder / f"{point}.reached").exists()
    await caller.lease_ends()
    stage.worker.start(PATIENT)

    await caller.assert_told(ordered, KILLS[point])


@pytest.mark.parametrize("moment", also_slow("before_commit", "after_commit", quick=("before_commit",)))
async def test_the_service_is_killed_as_it_settles_what_is_to_be_told(stage, caller, moment):
    ordered = await caller.begin({f"settle_and_tell:{moment}": "kill"}, "api", **PATIENT)

    await stage.api.died()
    await stage.open_api()

    await caller.assert_told(ordered, ONCE)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before_commit", "after_commit"])
async def test_every_connection_is_cut_as_what_is_to_be_told_is_settled(stage, caller, moment):
    ordered = await caller.begin({f"settle_and_tell:{moment}": "hold"}, "api")
    go_on = await stage.at_point(stage.api, f"settle_and_tell:{moment}")

    stage.to_postgres.reset()
    go_on()

    await caller.assert_told(ordered, ONCE)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before_commit", "after_commit"])
@pytest.mark.parametrize("step", COMMITS)
async def test_every_connection_to_postgres_is_cut(stage, caller, step, moment):
    ordered = await caller.begin({f"{step}:{moment}": "hold"})
    go_on = await stage.at_point(stage.worker, f"{step}:{moment}")

    stage.to_postgres.reset()
    go_on()

    await caller.assert_told(ordered, ONCE)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before_commit", "after_commit"])
@pytest.mark.parametrize("step", COMMITS)
async def test_postgres_is_killed_and_started_again(stage, caller, step, moment):
    ordered = await caller.begin({f"{step}:{moment}": "hold"})
    go_on = await stage.at_point(stage.worker, f"{step}:{moment}")

    stage.server.kill()
    go_on()
    await stage.server.start()

    # If Postgres was away for longer than the lease, the note comes too late.
    late = (step, moment) in {("parcels", "after_commit"), ("delivered", "before_commit")}
    await caller.assert_told(ordered, ONCE | AGAIN if late else ONCE)


@pytest.mark.slow
@pytest.mark.parametrize("step", COMMITS)
async def test_a_commit_is_done_and_its_answer_lost(stage, caller, step):
    ordered = await caller.begin({f"{step}:before_commit": "hold"})
    go_on = await stage.at_point(stage.worker, f"{step}:before_commit")

    stage.to_postgres.faults = Faults(swallow=frozenset({Way.DOWN}))
    go_on()

    async def done() -> bool:
        return bool(await stage.rows(DONE[step]))

    await until(done, what=DONE[step])
    stage.to_postgres.faults = Faults()
    stage.to_postgres.reset()

    await caller.assert_told(ordered, ONCE)


async def hangs(_: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def hangs_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


@pytest.mark.parametrize(
    ("reply", "error", "patience"),
    [(hangs_up, "broken_off", PATIENT), pytest.param(hangs, "timed_out", {}, marks=pytest.mark.slow)],
)
async def test_the_receiver_takes_it_and_its_answer_is_lost(stage, caller, reply, error, patience):
    caller.receiver.replies.insert(0, reply)
    ordered = await caller.begin({}, **patience)

    async def failed() -> bool:
        return bool(await stage.rows("SELECT FROM callback_attempts WHERE error IS NOT NULL"))

    await until(failed)
    assert await stage.rows("SELECT error FROM callback_attempts") == [(error,)]
    # The pause before the next try needn't be waited for.
    await stage.rows("UPDATE callback_deliveries SET due_at = now() WHERE due_at IS NOT NULL RETURNING id")

    await caller.assert_told(ordered, AGAIN)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before_commit", "after_commit"])
async def test_the_worker_is_killed_as_it_gives_up_what_nobody_wants_any_more(stage, caller, moment):
    ordered = await caller.begin({"settle_and_tell:before_commit": "hold"}, "api")
    go_on = await stage.at_point(stage.api, "settle_and_tell:before_commit")
    stage.worker.kill()
    stage.worker.start(stage.points({f"given_up:{moment}": "kill"}))

    # Just when its last job ends, an endpoint is disabled.
    await stage.rows("UPDATE callback_endpoints SET disabled_at = now(), disabled_why = 'by_caller' RETURNING id")
    go_on()
    await stage.worker.died()
    stage.worker.start()

    await assert_ends(stage, ordered, PAID)
    await caller.over("dead")
    assert not caller.receiver.got
