"""What fal took, noted in sets: as if each were alone."""

import asyncio
from functools import partial

from app.gather import Gatherer
from app.jobs import lifecycle, submits
from app.jobs.submits import Taken
from app.tenants.caller import Caller
from tests import factories as make
from tests.callbacks import rows

URL = "https://caller.example/callbacks"


async def intents_of(db, count):
    caller = await make.make_tenant(db)
    for _ in range(count):
        await make.accept(db, caller)
    return await make.take(db, count)


async def note(db, members):
    return await submits.note(db, members, progress_s=5, for_s=5)


async def statuses(db, intents):
    return [(await make.look(db, intent.job)).status for intent in intents]


async def test_a_set_is_noted_job_by_job_with_their_events(db):
    intents = await intents_of(db, 3)

    opened = await note(db, [Taken(intent, make.accepted(f"req-{n}")) for n, intent in enumerate(intents)])

    assert opened == [False] * 3
    assert [(await make.look(db, intent.job)).fal_request_id for intent in intents] == ["req-0", "req-1", "req-2"]
    for intent in intents:
        assert await make.events_of(db, intent.job) == [(1, "queued"), (2, "submitting"), (3, "submitted")]


async def test_a_set_that_is_noted_again_changes_nothing(db):
    members = [Taken(intent, make.accepted(f"req-{n}")) for n, intent in enumerate(await intents_of(db, 2))]
    await note(db, members)
    before = [await make.look(db, member.intent.job) for member in members]

    await note(db, members)

    after = [await make.look(db, member.intent.job) for member in members]
    assert [(job.event_count, job.due_at) for job in after] == [(job.event_count, job.due_at) for job in before]


async def test_news_that_came_first_is_left_as_it_is_and_its_neighbours_are_noted(db):
    ended, lost, plain = intents = await intents_of(db, 3)
    await make.report(db, ended, make.success("req-0"))
    await db.run(partial(lifecycle.lost, key=make.key_of(lost), why="ReadTimeout"))

    await note(db, [Taken(intent, make.accepted(f"req-{n}")) for n, intent in enumerate(intents)])

    assert await statuses(db, intents) == ["succeeded", "submitted", "submitted"]
    assert (await make.attempts_of(db, ended.job))[0].status_url is not None
    assert (await make.look(db, plain.job)).fal_request_id == "req-2"


async def test_a_request_that_two_attempts_are_told_belongs_to_one_and_harms_nobody_else(db):
    intents = await intents_of(db, 3)
    names = ["req-1", "req-1", "req-2"]
    noted = Gatherer(partial(note, db), writers=1)

    told = (noted(Taken(intent, make.accepted(name))) for intent, name in zip(intents, names, strict=True))
    await asyncio.gather(*told)

    assert sorted(await statuses(db, intents)) == ["submitted", "submitted", "submitting"]


async def test_a_set_is_told_to_all_who_listen(db):
    first, second, unheard = await intents_of(db, 2) + await intents_of(db, 1)
    caller, other = (Caller(intent.job.tenant_id, intent.job.tenant_id, frozenset()) for intent in (first, unheard))
    endpoints = [await rows.make_endpoint(db, caller, URL, events=["job.submitted"]) for _ in range(2)]

    await note(db, [Taken(each, make.accepted(f"req-{n}")) for n, each in enumerate((first, second, unheard))])

    told = await rows.deliveries(db, caller)
    assert {(row.job_id, row.endpoint_id, row.sequence) for row in told} == {
        (intent.job.id, endpoint.id, 3) for intent in (first, second) for endpoint in endpoints
    }
    assert len(told) == 4
    assert all('"type":"job.submitted"' in row.body and '"status":"submitted"' in row.body for row in told)
    assert await rows.deliveries(db, other) == []
