"""The loop that calls callers, against receivers of every kind, over real sockets."""

import asyncio
import json
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from functools import partial

import httpx
import pytest
from sqlalchemy import select

from app import clock
from app.callbacks import outcomes, queries, replays, signing, targets
from app.callbacks.outcomes import Why
from app.callbacks.post import Answer, post
from app.callbacks.schedule import PAUSES_S
from app.db import new_id
from app.http import guarded_transport, new_client
from app.incidents.tables import Incident
from app.incidents.watcher import watch
from app.jobs import lifecycle
from app.jobs.lifecycle import JobKey
from app.jobs.states import JobStatus
from tests import factories as make
from tests.callbacks import rows
from tests.callbacks.receiver import OK, receiving, says
from tests.ports import free_port
from tests.world import run_once


async def hangs(_: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def test_no_step_of_a_post_has_a_time_of_its_own():
    bounds = []

    def take(request: httpx.Request) -> httpx.Response:
        bounds.append(request.extensions["timeout"])
        return httpx.Response(204, stream=httpx.ByteStream(b""))

    async with new_client(1, transport=httpx.MockTransport(take)) as http:
        answer = await post(http, "https://caller.example/", "{}", {}, timeout_s=5)

    assert answer.delivered
    assert bounds == [{}]


async def sent(db, sender, *replies, **endpoint):
    """What became of one delivery to a receiver that answers with *replies*: delivery, attempt, receiver."""
    caller = await make.make_tenant(db)
    async with receiving(*replies) as receiver:
        await rows.make_tests(db, await rows.make_endpoint(db, caller, receiver.url, **endpoint))
        assert await run_once(sender) == 1
    (delivery,) = await rows.deliveries(db, caller)
    (attempt,) = await rows.attempts(db, caller)
    return delivery, attempt, receiver


async def test_what_is_delivered_carries_a_signature_that_the_standard_verifies(db, sender):
    secret = signing.new_secret()

    delivery, attempt, receiver = await sent(db, sender, says("202 Accepted", b"thanks"), secret=secret)

    (got,) = receiver.got
    assert got.verified(signing.shown(secret)) == json.loads(delivery.body)
    assert got.body == delivery.body.encode()
    assert got.headers["webhook-id"] == str(delivery.id)
    assert got.headers["content-type"] == "application/json"
    assert (delivery.status, delivery.tries, attempt.status_code, attempt.body) == ("delivered", 1, 202, "thanks")


async def test_while_a_secret_is_replaced_both_verify_and_afterwards_only_the_new_one(db, sender):
    old, new = signing.new_secret(), signing.new_secret()
    values = {"secret": new, "old_secret": old, "old_secret_until": clock.now() + timedelta(minutes=1)}

    *_, receiver = await sent(db, sender, **values)
    *_, later = await sent(db, sender, **{**values, "old_secret_until": clock.now()})

    for secret in (old, new):
        assert receiver.got[0].verified(signing.shown(secret))
    assert later.got[0].verified(signing.shown(new))
    with pytest.raises(Exception, match="No matching signature"):
        later.got[0].verified(signing.shown(old))


@pytest.mark.parametrize(
    ("reply", "status_code", "error"),
    [
        (says("500 Oh"), 500, "refused"),
        (says("404 Not Found"), 404, "refused"),
        (says("304 Not Modified"), 304, "redirected"),
        (hangs, None, "timed_out"),
    ],
)
async def test_what_is_not_taken_is_tried_again(db, sender, reply, status_code, error):
    patience_s = 0.5 if reply is hangs else 30
    delivery, attempt, _ = await sent(db, replace(sender, timeout_s=patience_s), reply)

    assert delivery.status == "pending"
    wait_s = (delivery.due_at - attempt.created_at).total_seconds()
    assert PAUSES_S[0] * 0.8 < wait_s < PAUSES_S[0] * 1.2
    assert (attempt.status_code, attempt.error) == (status_code, error)


async def test_a_receiver_that_cuts_the_connection_or_is_not_there_is_tried_again(db, sender):
    async def cuts(writer: asyncio.StreamWriter) -> None:
        writer.close()

    delivery, attempt, _ = await sent(db, sender, cuts)
    caller = await make.make_tenant(db)
    await rows.make_tests(db, await rows.make_endpoint(db, caller, f"http://127.0.0.1:{free_port()}/"))
    await run_once(sender)

    assert (delivery.status, attempt.error) == ("pending", "broken_off")
    assert [tried.error for tried in await rows.attempts(db, caller)] == ["unreachable"]


@pytest.mark.parametrize("to", ["http://169.254.169.254/latest", "http://127.0.0.1:1/", "https://example.com/"])
async def test_a_redirect_is_a_failure_and_never_followed(db, sender, to):
    _, attempt, receiver = await sent(db, sender, says(f"307 Temporary Redirect\r\nLocation: {to}"))

    assert (attempt.status_code, attempt.error, len(receiver.got)) == (307, "redirected", 1)


async def test_a_redirect_to_a_private_address_reaches_nobody(db, sender):
    async with receiving() as inside:
        await sent(db, sender, says(f"302 Found\r\nLocation: {inside.url}"))

    assert inside.got == []


async def test_an_answer_after_the_time_out_counts_for_nothing(db, sender):
    caller = await make.make_tenant(db)
    late = asyncio.Event()

    async def dawdles(writer: asyncio.StreamWriter) -> None:
        await late.wait()
        await OK(writer)

    async with receiving(dawdles, OK) as receiver:
        await rows.make_tests(db, await rows.make_endpoint(db, caller, receiver.url))
        await run_once(replace(sender, timeout_s=0.5))
        late.set()
        (delivery,) = await rows.deliveries(db, caller)
        assert delivery.status == "pending"

        await rows.all_due(db, caller)
        await run_once(sender)

    assert len({got.headers["webhook-id"] for got in receiver.got}) == 1
    assert len({got.body for got in receiver.got}) == 1
    assert [tried.error for tried in await rows.attempts(db, caller)] == ["timed_out", None]


async def test_of_ten_megabytes_the_first_two_kilobytes_are_read(db, sender):
    delivery, attempt, _ = await sent(db, sender, says("200 OK", b"x" * 10_000_000))

    assert (delivery.status, attempt.body) == ("delivered", "x" * 2048)


async def test_bytes_that_are_no_text_are_kept_all_the_same(db, sender):
    _, attempt, _ = await sent(db, sender, says("500 Oh", b"\x00\xff" * 2000))

    assert attempt.body == "\N{REPLACEMENT CHARACTER}" * 2048


async def test_a_body_that_never_ends_does_not_take_the_status_back(db, sender):
    async def trickles():
        yield b"x"
        await asyncio.Event().wait()

    # Over a socket, time could be up before the first byte is there.
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=trickles()))
    async with new_client(1, transport=transport) as http:
        delivery, attempt, _ = await sent(db, replace(sender, http=http, timeout_s=0.1))

    assert (delivery.status, attempt.body) == ("delivered", "x")


async def test_retry_after_is_obeyed_within_bounds(db, sender):
    beyond = "Mon, 01 Jan 2024 00:00:00 +99999999999999999"
    for text, least, most in (
        ("600", 600, 601),
        ("1", 4, 6),
        ("9" * 400, 28_800, 28_801),
        ("soon", 4, 6),
        (beyond, 4, 6),
    ):
        delivery, attempt, _ = await sent(db, sender, says(f"503 Busy\r\nRetry-After: {text}"))

        assert least <= (delivery.due_at - attempt.created_at).total_seconds() <= most, text


async def test_cookies_are_not_brought_back(db, sender):
    caller = await make.make_tenant(db)
    async with receiving(says("200 OK\r\nSet-Cookie: who=you; Path=/")) as receiver:
        await rows.make_tests(db, await rows.make_endpoint(db, caller, receiver.url), 2)
        await run_once(sender)
        await run_once(sender)

    assert len(receiver.got) == 2
    assert all("cookie" not in got.headers for got in receiver.got)


async def test_gone_disables_the_endpoint_and_gives_up_what_was_to_come(db, sender):
    caller = await make.make_tenant(db)
    async with receiving(says("410 Gone")) as receiver:
        endpoint = await rows.make_endpoint(db, caller, receiver.url)
        await rows.make_tests(db, endpoint, 3)
        await run_once(replace(sender, at_once=1))
        assert await run_once(sender) == 0

    now = await rows.look(db, endpoint)
    assert now.disabled_why == "gone"
    assert sorted(str(row.dead_why) for row in await rows.deliveries(db, caller)) == [
        "endpoint_disabled",
        "endpoint_disabled",
        "gone",
    ]
    assert len(receiver.got) == 1


# --- Where a name leads --------------------------------------------------------------------------------------


def resolving(*addresses):
    """A look-up that brings one of *addresses* after the other, then the last for ever."""
    turns = list(addresses)
    asked = []

    def resolve(host, port, *_, **__):
        asked.append(host)
        address = turns.pop(0) if len(turns) > 1 else turns[0]
        family = 10 if ":" in address else 2
        return [(family, 1, 6, "", (address, port, 0, 0) if family == 10 else (address, port))]

    return resolve, asked


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "fd00::1", "0.0.0.0"],
)
async def test_a_name_that_leads_inside_is_not_called(db, sender, address):
    resolve, asked = resolving(address)
    caller = await make.make_tenant(db)
    async with (
        receiving() as receiver,
        new_client(1, transport=guarded_transport(policy=targets.policy(), resolver=resolve)) as http,
    ):
        port = receiver.url.split(":")[2].split("/")[0]
        await rows.make_tests(db, await rows.make_endpoint(db, caller, f"http://caller.example:{port}/"))
        await run_once(replace(sender, http=http))

    assert asked == ["caller.example"]
    assert receiver.got == []
    assert [tried.error for tried in await rows.attempts(db, caller)] == ["address_refused"]


async def test_a_name_is_looked_up_once_and_judged_each_time_it_is(db, sender):
    # 127.0.0.1 stands for a public address: it is allowed, and ten is not. Who looked up twice would go there.
    resolve, asked = resolving("127.0.0.1", "10.0.0.1")
    allowed = targets.policy(sender.http._transport.policy.allowed_networks)
    caller = await make.make_tenant(db)
    async with (
        receiving(says("500 Oh\r\nConnection: close")) as receiver,
        new_client(1, transport=guarded_transport(policy=allowed, resolver=resolve)) as http,
    ):
        port = receiver.url.split(":")[2].split("/")[0]
        await rows.make_tests(db, await rows.make_endpoint(db, caller, f"http://caller.example:{port}/"))
        patient = replace(sender, http=http)
        await run_once(patient)
        assert (len(receiver.got), asked) == (1, ["caller.example"])

        await rows.all_due(db, caller)
        await run_once(patient)

    assert len(receiver.got) == 1
    assert [tried.error for tried in await rows.attempts(db, caller)] == ["refused", "address_refused"]


# --- When something dies -------------------------------------------------------------------------------------


async def test_killed_between_send_and_note_it_is_sent_again_with_the_same_id_and_bytes(db, sender):
    caller = await make.make_tenant(db)
    async with receiving(hangs, OK) as receiver:
        await rows.make_tests(db, await rows.make_endpoint(db, caller, receiver.url))
        (piece,) = await sender.take(8)
        dying = asyncio.create_task(piece)
        await receiver.came.wait()
        dying.cancel()
        await asyncio.gather(dying, return_exceptions=True)
        (delivery,) = await rows.deliveries(db, caller)
        assert (delivery.status, await rows.attempts(db, caller)) == ("pending", [])

        await rows.all_due(db, caller)
        await run_once(replace(sender, owner="b", _under_way=Counter()))

    first, second = receiver.got
    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)
    (delivery,) = await rows.deliveries(db, caller)
    assert (delivery.status, delivery.tries) == ("delivered", 2)


async def test_two_senders_never_have_the_same_delivery(db, sender):
    caller = await make.make_tenant(db)
    async with receiving() as receiver:
        await rows.make_tests(db, await rows.make_endpoint(db, caller, receiver.url), 20)
        crowd = [replace(sender, owner=str(n), at_once=16, _under_way=Counter()) for n in range(6)]
        # Those who pick at the same moment may leave each other less than they want.
        for _ in range(3):
            await asyncio.gather(*(run_once(one) for one in crowd))

    ids = [got.headers["webhook-id"] for got in receiver.got]
    assert len(ids) == len(set(ids)) == 20


async def test_who_lost_the_lease_can_not_note_what_came(db, sender):
    caller = await make.make_tenant(db)
    finish = asyncio.Event()

    async def fails_late(writer: asyncio.StreamWriter) -> None:
        await finish.wait()
        await says("500 Oh")(writer)

    async with receiving(fails_late, OK) as receiver:
        await rows.make_tests(db, await rows.make_endpoint(db, caller, receiver.url))
        (slow,) = await sender.take(8)
        late = asyncio.create_task(slow)
        await receiver.came.wait()
        await rows.all_due(db, caller)
        await run_once(replace(sender, owner="b", _under_way=Counter()))
        finish.set()
        await late

    (delivery,) = await rows.deliveries(db, caller)
    assert (delivery.status, [tried.status_code for tried in await rows.attempts(db, caller)]) == ("delivered", [200])


@pytest.mark.parametrize(
    ("answer", "became"),
    [
        (Answer(200, None, "", 1), "delivered"),
        (Answer(500, "refused", "", 1), "again"),
        (Answer(410, "refused", "", 1), "dead"),
    ],
)
async def test_noting_twice_after_a_lost_answer_of_the_database_notes_once(db, sender, answer, became):
    caller = await make.make_tenant(db)
    await rows.make_tests(db, await rows.make_endpoint(db, caller, "http://127.0.0.1:1024/"))
    (parcel,) = await sender._parcels(1)
    note = partial(outcomes.note, parcel=parcel, answer=answer, attempt_id=new_id(), disable_after_s=1000)

    noted = [await db.run(note) for _ in range(2)]

    assert noted == [became, became]
    assert len(await rows.attempts(db, caller)) == 1


# --- Fair and in order ---------------------------------------------------------------------------------------


async def test_an_endpoint_that_hangs_has_a_quarter_of_the_places_and_starves_nobody(db, sender):
    slow_caller, caller = await make.make_tenant(db), await make.make_tenant(db)
    async with receiving(hangs) as slow, receiving() as quick:
        await rows.make_tests(db, await rows.make_endpoint(db, slow_caller, slow.url), 30)
        await rows.make_tests(db, await rows.make_endpoint(db, caller, quick.url), 2)
        taken = [asyncio.create_task(piece) for _ in range(3) for piece in await sender.take(8)]
        assert len(taken) == 4
        async with asyncio.timeout(60):
            while sum(piece.done() for piece in taken) < 2:
                await asyncio.sleep(0.01)
        assert len(quick.got) == 2
        for piece in taken:
            piece.cancel()
        await asyncio.gather(*taken, return_exceptions=True)

    assert not sender._under_way


async def moved(db, caller, *statuses):
    """A job that went through *statuses*."""
    intent = await make.taken(db, caller)
    await make.submit(db, intent)
    key = JobKey(caller.tenant_id, intent.job.id)
    for status in statuses:
        now = {"started_at": clock.now()} if status == JobStatus.IN_PROGRESS else {}
        await db.run(lambda session, to=status, now=now: lifecycle.move(session, key, to, "test", **now))
    return intent.job


async def test_events_of_a_job_come_in_their_order_one_after_the_other(db, sender):
    caller = await make.make_tenant(db)
    async with receiving(says("500 Oh"), OK) as receiver:
        await rows.make_endpoint(db, caller, receiver.url, events=["job.submitted", "job.in_progress"])
        job = await moved(db, caller, JobStatus.IN_PROGRESS)

        assert await run_once(sender) == 1
        assert await run_once(sender) == 0
        await rows.all_due(db, caller)
        assert await run_once(sender) == 1
        assert await run_once(sender) == 1

    told = [(json.loads(got.body)["type"], json.loads(got.body)["data"]["sequence"]) for got in receiver.got]
    assert told == [("job.submitted", 3), ("job.submitted", 3), ("job.in_progress", 4)]
    assert json.loads(receiver.got[0].body)["data"]["job"]["status"] == "submitted"
    assert {json.loads(got.body)["data"]["job"]["id"] for got in receiver.got} == {str(job.id)}


async def test_an_event_that_nobody_takes_holds_the_next_back_for_minutes_only(db, sender):
    caller = await make.make_tenant(db)
    async with receiving(says("400 What"), OK) as receiver:
        await rows.make_endpoint(db, caller, receiver.url, events=["job.submitted", "job.in_progress"])
        await moved(db, caller, JobStatus.IN_PROGRESS)
        await run_once(sender)
        (first, _) = await rows.deliveries(db, caller)
        await rows.change(db, first, queued_at=clock.now() - timedelta(minutes=6))

        assert await run_once(sender) == 1

    assert [row.status for row in await rows.deliveries(db, caller)] == ["pending", "delivered"]


async def test_another_jobs_events_do_not_wait(db, sender):
    caller = await make.make_tenant(db)
    async with receiving(says("500 Oh"), OK) as receiver:
        await rows.make_endpoint(db, caller, receiver.url, events=["job.succeeded"])
        for _ in range(2):
            await rows.finished(db, caller)
        assert await run_once(sender) == 2


# --- Giving up -----------------------------------------------------------------------------------------------


async def test_after_its_last_try_a_delivery_is_dead_listed_and_can_be_replayed(db, sender):
    caller = await make.make_tenant(db)
    async with receiving(says("500 Oh")) as receiver:
        endpoint = await rows.make_endpoint(db, caller, receiver.url)
        await rows.make_tests(db, endpoint)
        for _ in range(1 + len(PAUSES_S)):
            await rows.all_due(db, caller)
            assert await run_once(sender) == 1
        (dead,) = await rows.deliveries(db, caller)
        assert (dead.status, dead.dead_why, dead.due_at) == ("dead", "exhausted", None)
        await watch(db)
        async with db.session() as session:
            told = select(Incident).where(Incident.kind == "dead_letters", Incident.closed_at.is_(None))
            assert (await session.scalars(told)).one().subject == str(endpoint.id)

        receiver.replies[:] = [OK]
        assert await db.run(lambda session: replays.replay(session, caller.tenant_id, queries.Filter())) == 1
        await run_once(sender)

    (delivery,) = await rows.deliveries(db, caller)
    assert (delivery.status, delivery.tries) == ("delivered", 1)
    assert len(await rows.attempts(db, caller)) == 12
    assert (await rows.look(db, endpoint)).disabled_at is None


async def failing_for(db, sender, seconds, *, tries):
    """The endpoint after one more failure, when nothing got through for *seconds* of 1000."""
    caller = await make.make_tenant(db)
    async with receiving(says("500 Oh")) as receiver:
        since = clock.now() - timedelta(seconds=seconds)
        endpoint = await rows.make_endpoint(db, caller, receiver.url, failing_since=since)
        await rows.make_tests(db, endpoint)
        (delivery,) = await rows.deliveries(db, caller)
        await rows.change(db, delivery, tries=tries)
        await run_once(sender)
    return await rows.look(db, endpoint)


async def test_nothing_through_for_long_disables_after_a_warning(db, sender):
    young = await failing_for(db, sender, 400, tries=10)
    warned = await failing_for(db, sender, 600, tries=10)
    # A day of quiet may lie between two failures: only what was tried to the end tells that nothing gets through.
    tried_once = await failing_for(db, sender, 1100, tries=0)
    disabled = await failing_for(db, sender, 1100, tries=10)

    assert (young.warned_at, young.disabled_at) == (None, None)
    assert (warned.warned_at is not None, warned.disabled_at) == (True, None)
    assert (tried_once.warned_at is not None, tried_once.disabled_at) == (True, None)
    assert disabled.disabled_why == "failing"


async def test_one_that_gets_through_clears_the_record(db, sender):
    caller = await make.make_tenant(db)
    async with receiving() as receiver:
        endpoint = await rows.make_endpoint(db, caller, receiver.url, failing_since=clock.now(), warned_at=clock.now())
        await rows.make_tests(db, endpoint)
        await run_once(sender)

    now = await rows.look(db, endpoint)
    assert (now.failing_since, now.warned_at) == (None, None)


async def test_what_was_written_just_as_its_endpoint_was_disabled_is_given_up_unsent(db, sender):
    caller = await make.make_tenant(db)
    async with receiving() as receiver:
        endpoint = await rows.make_endpoint(db, caller, receiver.url)
        await db.run(lambda session: outcomes.disable(session, caller.tenant_id, endpoint.id, Why.BY_CALLER))
        await rows.make_tests(db, endpoint)
        assert await run_once(sender) == 1

    (delivery,) = await rows.deliveries(db, caller)
    assert (delivery.dead_why, receiver.got) == ("endpoint_disabled", [])
