"""
Each step of a job's way × each thing that can go wrong there, with real processes.

After each case what was killed is started again, and once nothing moves any more, both sides are counted: our
database and fal's books. A case also names the status it ends in, and how often fal was asked for the video.
"""

import time
from typing import Any, Final

import pytest

from tests.faults.cases import (
    LOST,
    PAID,
    REFUSED_ONCE,
    UNHEARD,
    UNKNOWN,
    Case,
    also_slow,
    assert_ends,
    begin,
    cases,
    of,
)
from tests.faults.proxy import Faults, Way
from tests.faults.stage import until

# Real processes, killed and started again: on a busy machine that takes a while.
pytestmark = pytest.mark.timeout(240)

KILLS = cases(
    Case("api", "accept:before_commit"),
    Case("api", "accept:after_commit", quick=True),
    Case("worker", "take:before_commit"),
    Case("worker", "take:after_commit", ends=UNKNOWN, quick=True),
    Case("worker", "submit:before_call", ends=UNKNOWN),
    Case("worker", "submit:sent", quick=True),
    Case("worker", "submit:answered"),
    Case("worker", "_note_accepted:before_commit", quick=True),
    Case("worker", "_note_accepted:after_commit"),
    Case("worker", "lost:before_commit", LOST),
    Case("worker", "lost:after_commit", LOST),
    Case("worker", "_note_refused:before_commit", REFUSED_ONCE, ends=UNKNOWN),
    Case("worker", "_note_refused:after_commit", REFUSED_ONCE),
    Case("api", "settle:before_commit"),
    Case("api", "settle:after_commit", quick=True),
    Case("worker", "_due:before_commit", UNHEARD),
    Case("worker", "_due:after_commit", UNHEARD),
    Case("worker", "status:before_call", UNHEARD),
    Case("worker", "status:sent", UNHEARD),
    Case("worker", "status:answered", UNHEARD),
    Case("worker", "result:before_call", UNHEARD),
    Case("worker", "result:sent", UNHEARD),
    Case("worker", "result:answered", UNHEARD),
    Case("worker", "reported:before_commit", UNHEARD),
    Case("worker", "reported:after_commit", UNHEARD, quick=True),
    Case("worker", "claim:before_commit"),
    Case("worker", "claim:after_commit"),
    Case("worker", "file:before_call"),
    Case("worker", "file:sent"),
    Case("worker", "file:answered", quick=True),
    Case("worker", "note_ended:before_commit"),
    Case("worker", "note_ended:after_commit"),
)


def commits(*quick: str) -> list[Any]:
    """Every step that ends in a commit; those named are *quick*."""
    found = {
        "accept": "",
        "take": "",
        "_note_accepted": "",
        "lost": LOST,
        "settle": "",
        "reported": UNHEARD,
        # The rescuer's two: it takes a file, and notes its copy.
        "claim": "",
        "note_ended": "",
    }
    return cases(
        *(
            Case("api" if step in {"accept", "settle"} else "worker", step, prompt, quick=step in quick)
            for step, prompt in found.items()
        )
    )


@pytest.mark.parametrize("case", KILLS)
async def test_a_process_is_killed(stage, case):
    ordered = await begin(stage, case, stage.points({case.point: "kill"}))

    await of(stage, case).died()
    assert (stage.folder / f"{case.point}.reached").exists()
    if case.process == "api":
        await stage.open_api()
    else:
        stage.worker.start()

    await assert_ends(stage, ordered, case.ends)


@pytest.mark.parametrize("moment", also_slow("before_commit", "after_commit", quick=("before_commit",)))
@pytest.mark.parametrize("case", commits("_note_accepted", "settle"))
async def test_postgres_is_killed_and_started_again(stage, case, moment):
    point = f"{case.point}:{moment}"
    ordered = await begin(stage, case, stage.points({point: "hold"}))
    go_on = await stage.at_point(of(stage, case), point)

    stage.server.kill()
    go_on()
    await stage.server.start()

    # Taken for sure, but the worker was told so: it goes on to send it.
    await assert_ends(stage, ordered, case.ends)


@pytest.mark.parametrize("moment", ["before_commit", "after_commit"])
@pytest.mark.parametrize("case", commits())
async def test_every_connection_to_postgres_is_cut(stage, case, moment):
    point = f"{case.point}:{moment}"
    ordered = await begin(stage, case, stage.points({point: "hold"}))
    go_on = await stage.at_point(of(stage, case), point)

    stage.to_postgres.reset()
    go_on()

    await assert_ends(stage, ordered, case.ends)


DONE: Final = {
    "accept": "SELECT FROM jobs",
    "take": "SELECT FROM attempts",
    "_note_accepted": "SELECT FROM attempts WHERE status = 'submitted'",
    "lost": "SELECT FROM attempts WHERE status = 'unknown'",
    "settle": "SELECT FROM jobs WHERE status = 'succeeded'",
    "reported": "SELECT FROM jobs WHERE status = 'succeeded'",
    "claim": "SELECT FROM outputs WHERE lease_token > 0",
    "note_ended": "SELECT FROM jobs WHERE safe_at IS NOT NULL",
}


@pytest.mark.parametrize("case", commits("accept", "take", "settle"))
async def test_a_commit_is_done_and_its_answer_lost(stage, case):
    point = f"{case.point}:before_commit"
    ordered = await begin(stage, case, stage.points({point: "hold"}))
    go_on = await stage.at_point(of(stage, case), point)

    if case.point == "settle":
        # Cut off half-way, the worker's own news would hold the rows that are to be settled.
        await until(lambda: stage.rows(DONE["_note_accepted"]), what="noted")
    stage.to_postgres.faults = Faults(swallow=frozenset({Way.DOWN}))
    go_on()

    async def done() -> bool:
        return bool(await stage.rows(DONE[case.point]))

    await until(done, what=DONE[case.point])
    stage.to_postgres.faults = Faults()
    stage.to_postgres.reset()

    await assert_ends(stage, ordered, case.ends)


@pytest.mark.slow
async def test_postgres_falls_silent_while_its_connections_look_alive(stage):
    await assert_ends(stage, await begin(stage, Case("worker", ""), {"ANSWER_S": "3"}), PAID)

    stage.to_postgres.faults = Faults(swallow=frozenset(Way))
    until_s = time.monotonic() + 1

    async def over() -> bool:
        return time.monotonic() > until_s

    await until(over)
    stage.to_postgres.faults = Faults()
    second = await stage.order("order-2", "")

    # What was asked into the silence is given up, and asked again on another connection.
    await stage.rest(60)
    assert (await stage.see(str(second)))[0] == "succeeded"


FILES: Final = {
    "cut off in the middle": Faults(cut_after={Way.DOWN: 600}),
    "an end of stream": Faults(half_close=frozenset({Way.DOWN})),
    "reset": Faults(refuse=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", FILES)
async def test_the_way_to_a_file_fails_and_it_is_kept_whole(stage, what):
    case = Case("worker", "file:before_call")
    ordered = await begin(stage, case, stage.points({case.point: "hold"}))
    go_on = await stage.at_point(stage.worker, case.point)

    stage.to_fal.faults = FILES[what]
    go_on()

    async def failed() -> bool:
        return bool(await stage.rows("SELECT FROM outputs WHERE error IS NOT NULL"))

    await until(failed)
    stage.to_fal.faults = Faults()
    stage.to_fal.reset()

    await assert_ends(stage, ordered, PAID)


async def noted(stage):
    """Wait until what became of a submit was written down."""

    async def answered() -> bool:
        return bool(await stage.rows("SELECT FROM attempts WHERE answered_at IS NOT NULL"))

    await until(answered)


NETWORK: Final = {
    "the answer is cut off": (Faults(cut_after={Way.DOWN: 0}), PAID),
    "the answer is cut off in the middle": (Faults(cut_after={Way.DOWN: 60}), PAID),
    "the answer never comes": (Faults(swallow=frozenset({Way.DOWN})), PAID),
    "the answer is an end of stream": (Faults(half_close=frozenset({Way.DOWN})), PAID),
    "the order is cut off in the middle": (Faults(cut_after={Way.UP: 60}), UNKNOWN),
    "the order is still on its way": (Faults(delay_s=5), UNKNOWN),
    "the order never arrives": (Faults(swallow=frozenset({Way.UP})), UNKNOWN),
}


@pytest.mark.parametrize("what", also_slow(*NETWORK, quick=("the answer never comes",)))
async def test_the_way_to_fal_fails_during_a_submit(stage, what):
    faults, ends = NETWORK[what]
    case = Case("worker", "submit:before_call")
    ordered = await begin(stage, case, stage.points({case.point: "hold"}))
    go_on = await stage.at_point(stage.worker, case.point)

    stage.to_fal.faults = faults
    go_on()
    await noted(stage)
    if ends == PAID:
        # We may be slow to pass the order on, and what is reset here must be its answer only.
        await until(stage.books)
    stage.to_fal.faults = Faults()
    stage.to_fal.reset()

    await assert_ends(stage, ordered, ends)


@pytest.mark.slow
async def test_the_connection_is_reset_with_the_order_on_its_way(stage):
    case = Case("worker", "submit:sent")
    stage.to_fal.faults = Faults(swallow=frozenset({Way.UP}))
    ordered = await begin(stage, case, stage.points({case.point: "hold"}))
    go_on = await stage.at_point(stage.worker, case.point)

    stage.to_fal.reset()
    go_on()
    await noted(stage)
    stage.to_fal.faults = Faults()

    await assert_ends(stage, ordered, UNKNOWN)


@pytest.mark.slow
async def test_no_connection_comes_to_be_so_nothing_was_sent_and_it_is_sent_later(stage):
    case = Case("worker", "submit:before_call")
    ordered = await begin(stage, case, stage.points({case.point: "hold"}))
    go_on = await stage.at_point(stage.worker, case.point)

    await stage.to_fal.deaf()
    go_on()
    await noted(stage)
    assert not await stage.books()
    await stage.to_fal.listen()

    await assert_ends(stage, ordered, PAID)


# A webhook that never comes is made up for by fal's history, which lists what fal has begun.
ANSWERS: Final = {
    "slow_answer_s=1.5": PAID,
    "slow_answer_s=1.5, webhook=never": PAID,
    "lost_answer": PAID,
    "lost_answer, webhook=never": PAID,
    "answer=502": PAID,
    "lost_request": UNKNOWN,
    "refuse=503": UNKNOWN,
    "refuse=429, times=2": PAID,
}
WEBHOOKS: Final = {
    "webhook=never": PAID,
    "webhook=ok*5": PAID,
    "webhook_s=1.5": PAID,
    "webhook=early": PAID,
    "webhook=early, lost_answer": PAID,
    "webhook=forged+tampered+unsigned+unknown_key+foreign": PAID,
    "webhook=old+future": PAID,
    "webhook=forged+ok*2, read_errors=2": PAID,
    "outcome=policy, webhook=twice": ("failed", 1),
    "retries=1": PAID,
}


@pytest.mark.parametrize("script", also_slow(*ANSWERS, *WEBHOOKS, quick=("lost_answer, webhook=never",)))
async def test_fal_answers_or_tells_wrongly(stage, script):
    ordered = await begin(stage, Case("worker", "", f"[[sim: {script}]]"), {})

    await assert_ends(stage, ordered, {**ANSWERS, **WEBHOOKS}[script])


async def test_a_webhook_overtakes_the_answer_and_comes_again_after_it(stage):
    case = Case("worker", "submit:answered")
    ordered = await begin(stage, case, stage.points({case.point: "hold"}))
    go_on = await stage.at_point(stage.worker, case.point)

    async def settled() -> bool:
        return bool(await stage.rows(DONE["settle"]))

    await until(settled)
    go_on()
    (paid,) = await stage.books()
    heard = [await stage.webhook_again(paid["request_id"], form) for form in ("ok", "forged", "ok")]

    assert [one["code"] for one in heard] == [200, 401, 200]
    await assert_ends(stage, ordered, PAID)
