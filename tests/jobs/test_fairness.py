"""Who goes next: the chooser never goes above a cap, takes turns, and takes what there is room for."""

from copy import deepcopy
from datetime import UTC, datetime, timedelta
from itertools import groupby
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from app.jobs.fairness import AtFal, Caps, Room, Waiting, choose, room

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
TENANTS = [UUID(int=n) for n in range(1, 5)]
MODELS = ["a", "b", "c"]
ACCOUNTS = ["one", "two"]
FEW = st.integers(0, 6)


@st.composite
def queues(draw):
    rows = st.tuples(st.sampled_from(TENANTS), st.sampled_from(MODELS), st.integers(0, 2), st.integers(0, 9))
    return [
        Waiting(tenant, UUID(int=n), model, priority, NOON + timedelta(seconds=second))
        for n, (tenant, model, priority, second) in enumerate(draw(st.lists(rows, max_size=40)))
    ]


ROOMS = st.builds(
    Room,
    accounts=st.dictionaries(st.sampled_from(ACCOUNTS), st.one_of(FEW, st.just(1000)), min_size=1),
    models=st.dictionaries(st.sampled_from(MODELS), FEW),
    tenants=st.dictionaries(st.sampled_from(TENANTS), FEW),
    tenant=st.one_of(st.none(), FEW),
)
AFTER = st.one_of(st.none(), st.sampled_from(TENANTS))


@given(queues(), ROOMS, st.integers(0, 20), AFTER)
def test_no_cap_is_exceeded_and_nothing_that_could_go_stays(waiting, left, limit, after):
    before = deepcopy(left)

    chosen = choose(waiting, left, limit=limit, after=after)

    jobs = [choice.job for choice in chosen]
    assert len(set(jobs)) == len(jobs) <= limit
    for account, free in before.accounts.items():
        assert sum(choice.account == account for choice in chosen) <= free
    for model, free in before.models.items():
        assert sum(job.model == model for job in jobs) <= free
    for tenant in TENANTS:
        assert sum(job.tenant_id == tenant for job in jobs) <= before.of_tenant(tenant)
    if len(chosen) < limit and left.account() is not None:
        for job in set(waiting) - set(jobs):
            assert left.of_tenant(job.tenant_id) <= 0 or left.models.get(job.model, 1) <= 0


@given(queues(), st.integers(0, 20), AFTER)
def test_tenants_take_turns_and_each_sends_what_matters_most_first(waiting, limit, after):
    chosen = [choice.job for choice in choose(waiting, Room({"one": 1000}), limit=limit, after=after)]

    counts = {tenant: sum(job.tenant_id == tenant for job in chosen) for tenant in TENANTS}
    for tenant, had in ((one, [job for job in waiting if job.tenant_id == one]) for one in TENANTS):
        # Who got less than another by more than the turn under way had no more.
        assert counts[tenant] == len(had) or counts[tenant] >= max(counts.values()) - 1
        mine = [job for job in chosen if job.tenant_id == tenant]
        assert mine == sorted(had, key=lambda job: (job.priority, job.due_at, job.id))[: len(mine)]


@given(queues(), st.integers(1, 3))
def test_over_rounds_everybody_is_served_within_one_turn(waiting, limit):
    after, rounds, queue = None, [], list(waiting)
    while queue:
        chosen = [choice.job for choice in choose(queue, Room({"one": limit}), limit=limit, after=after)]
        assert chosen
        after = chosen[-1].tenant_id
        queue = [job for job in queue if job not in chosen]
        rounds += chosen

    tenants = {job.tenant_id for job in waiting}
    assert {job.tenant_id for job in rounds[: len(tenants)]} == tenants
    assert (
        max((len(list(run)) for _, run in groupby(rounds[: len(tenants)], lambda job: job.tenant_id)), default=1) == 1
    )


def test_a_full_model_does_not_hold_up_its_tenants_other_models():
    waiting = [
        Waiting(TENANTS[0], UUID(int=1), "a", 0, NOON),
        Waiting(TENANTS[0], UUID(int=2), "b", 2, NOON + timedelta(hours=1)),
    ]

    (choice,) = choose(waiting, Room({"one": 9}, models={"a": 0}), limit=9, after=None)

    assert choice.job.model == "b"


def test_a_probe_goes_first_and_the_emptier_account_next():
    waiting = [Waiting(TENANTS[0], UUID(int=n), "a", 1, NOON) for n in range(4)]
    left = Room({"one": 1, "two": 2, "three": 9, "four": 0}, probed=frozenset({"one"}))

    chosen = choose(waiting, left, limit=9, after=None)

    assert [choice.account for choice in chosen] == ["one", "three", "three", "three"]


def test_what_is_at_fal_takes_room_from_all_its_caps():
    at_fal = [AtFal(TENANTS[0], "a", "one", 3), AtFal(TENANTS[1], "b", "gone", 5)]

    left = room(Caps({"one": 4, "two": None}, {"a": 2}, tenant=5), {TENANTS[1]: 6}, at_fal)

    assert (left.accounts["one"], left.models["a"]) == (1, -1)
    assert [left.of_tenant(tenant) for tenant in TENANTS[:3]] == [2, 1, 5]
    assert left.account() == "two"
