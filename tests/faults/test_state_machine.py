"""
Any order of orders, losses, deaths, news and decisions keeps the promises: Callsheet beside a model of it.

The whole of Callsheet runs in-process against the simulator, whose clock only rules move. After every rule
the model looks at everything; at the end all is brought to rest, and `callsheet verify` and the promises of the
storm must hold too. A failure names its seed: `SEED=… .venv/bin/pytest --timeout 0 tests/faults/test_state_machine.py`
repeats it, and makes it as short as it can be.
"""

import asyncio
import os
import random
from contextlib import AsyncExitStack
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.jobs import decisions
from app.jobs.decisions import Unresolvable
from app.verify.books import SimulatorBooks
from app.verify.verifier import verify
from tests import factories as make
from tests.databases import Databases
from tests.faults.frail import Died, Fault, Frail, Moment, frail_api
from tests.faults.model import ENDINGS, Model, Seen, name_of
from tests.faults.promises import check
from tests.world import World, build

PRICE: Final = Decimal("2.10")
SCRIPTS: Final = (
    "",
    "lost_answer",
    "lost_answer, webhook=never",
    "lost_request",
    "lost_request, times=1",
    "answer=502",
    "refuse=429, times=1",
    "refuse=503, times=1",
    "refuse=404",
    "refuse=locked, times=1",
    "webhook=never",
    "webhook=never, read_errors=2",
    "webhook=ok*3",
    "webhook=early",
    "webhook=early, lost_answer",
    "webhook_s=90",
    "webhook=forged+tampered+unsigned+old+ok",
    "outcome=policy",
    "outcome=policy, lost_answer, webhook=never",
    "retries=1",
    "run_s=90, cancel=stop",
)
FORMS: Final = ("ok", "forged", "tampered", "unsigned", "unknown_key", "old", "future", "foreign")
JOBS: Final = """
    SELECT j.id, j.input ->> 'prompt', j.status, j.charged, array_agg(e.number ORDER BY e.number)
    FROM jobs j LEFT JOIN job_events e ON e.tenant_id = j.tenant_id AND e.job_id = j.id GROUP BY j.tenant_id, j.id
"""

ANY: Final = st.integers(0, 1000)
FAULTS: Final = st.builds(Fault, number=st.integers(1, 5), moment=st.sampled_from(Moment), dies=st.booleans())


class Machine(RuleBasedStateMachine):
    """Everything that may happen, in any order, in a database of its own."""

    def __init__(self, databases: Databases, folder: Path) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.stack = AsyncExitStack()
        self.databases = databases
        self.url = databases.take()
        self.world: World = self.do(build(self.stack, self.url, folder / uuid4().hex))
        self.model = Model(PRICE)
        self.numbers = 0

    def do(self, coming: Any) -> Any:
        return self.runner.run(coming)

    # --- Callers --------------------------------------------------------------------------------------------

    @rule(script=st.sampled_from(SCRIPTS), keyed=st.booleans())
    def order(self, script: str, keyed: bool) -> None:
        self.do(self._order(self._next(keyed=keyed), script))

    @rule(
        script=st.sampled_from(SCRIPTS),
        number=st.integers(1, 2),
        moment=st.sampled_from(Moment),
        again=st.integers(1, 3),
    )
    def order_and_ask_again_as_the_answer_got_lost(self, script: str, number: int, moment: Moment, again: int) -> None:
        name = self._next(keyed=True)
        # The first transaction finds the key, the second accepts the order.
        self._frail_api(Fault(number, moment, dies=False), self._order(name, script))
        for _ in range(again):
            self.do(self._order(name, script))
        assert self.model.ordered[name] is not None

    @rule(which=ANY)
    def cancel(self, which: int) -> None:
        if name := self._pick(which):
            self.model.canceled.add(name)
            answer = self.do(self.world.cancel(str(self.model.ordered[name])))
            assert answer.status_code in {200, 202, 409}, answer.text

    # --- Workers --------------------------------------------------------------------------------------------

    @rule()
    def dispatch(self) -> None:
        self.do(self.world.dispatch())

    @rule()
    def ask(self) -> None:
        self.do(self.world.ask())

    @rule()
    def rescue(self) -> None:
        self.do(self.world.rescue())

    @rule(loop=st.sampled_from(["dispatcher", "reconciler", "rescuer"]), fault=FAULTS)
    def a_worker_fails(self, loop: str, fault: Fault) -> None:
        source = getattr(self.world, loop)
        self.do(_run_until_death(replace(source, db=Frail(self.world.db, fault))))

    @rule()
    def a_worker_dies_before_it_sends(self) -> None:
        for piece in self.do(self.world.dispatcher.take(10)):
            piece.close()

    @rule()
    def leases_and_pauses_run_out(self) -> None:
        self.do(make.let_time_pass(self.world.db))

    # --- fal ------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.5, 2.0]))
    def fal_goes_on(self, seconds: float) -> None:
        self.do(self.world.at_fal(seconds))

    @rule()
    def fal_ends_it_all(self) -> None:
        self.do(self._minutes_at_fal())

    @rule(moment=st.sampled_from(Moment), number=st.integers(1, 3))
    def fal_tells_an_api_that_cannot_keep_it(self, moment: Moment, number: int) -> None:
        self._frail_api(Fault(number, moment, dies=False), self._minutes_at_fal())

    @rule(which=ANY, form=st.sampled_from(FORMS), times=st.integers(1, 2))
    def fal_or_somebody_else_tells_again(self, which: int, form: str, times: int) -> None:
        async def tell() -> None:
            books = await self.world.books()
            if books:
                there = f"/simulator/webhooks/{books[which % len(books)]['request_id']}"
                await asyncio.gather(*(self.world.fal.post(there, json={"form": form}) for _ in range(times)))

        self.do(tell())

    # --- Operators ------------------------------------------------------------------------------------------

    @rule(which=ANY)
    def an_operator_finds_out(self, which: int) -> None:
        if name := self._pick(which):
            self.do(self._resolve(name))

    # --- What must hold -------------------------------------------------------------------------------------

    @invariant()
    def the_model_agrees(self) -> None:
        self.do(self._look())

    def teardown(self) -> None:
        try:
            self.do(self._rest())
        finally:
            self.do(self.stack.aclose())
            self.runner.close()
            self.databases.give_back(self.url)

    def _next(self, *, keyed: bool) -> str:
        self.numbers += 1
        name = f"{'keyed' if keyed else 'order'}-{self.numbers}"
        self.model.ordered[name] = None
        return name

    def _pick(self, which: int) -> str | None:
        known = [name for name, job_id in self.model.ordered.items() if job_id is not None]
        return known[which % len(known)] if known else None

    async def _order(self, name: str, script: str) -> None:
        body = {"model": make.O3, "input": {"prompt": f"[[sim: {script}]] {name}", "duration": "5"}}
        headers = {"Idempotency-Key": name} if name.startswith("keyed") else {}
        answer = await self.world.api.post("/v1/jobs", json=body, headers=headers)
        assert answer.is_success or answer.status_code >= 500, answer.text
        if answer.is_success:
            self.model.answered(name, answer.json()["id"])

    def _frail_api(self, fault: Fault, coming: Any) -> None:
        with frail_api(self.world.app.state, fault):
            self.do(coming)

    async def _minutes_at_fal(self) -> None:
        await self.world.at_fal(100)
        # While a real video is made the clock may have moved past; what waited for its place at fal needs time, too.
        async with asyncio.timeout(60):
            while any(request["state"] != "COMPLETED" for request in await self.world.books()):
                await self.world.at_fal(10)
                await asyncio.sleep(0.01)
        # What the end made due: webhooks, and those that were not heard.
        for _ in range(5):
            await self.world.at_fal(1)

    async def _resolve(self, name: str) -> None:
        key = await make.key_of_id(self.world.db, str(self.model.ordered[name]))
        job = await make.look(self.world.db, key)
        known = [one["request_id"] for one in await self.world.books() if name_of(one["input"]["prompt"]) == name]
        if known:
            decide = partial(decisions.resolve_accepted, job=job, request_id=known[0], reason=None)
        else:
            decide = partial(decisions.resolve_not_accepted, job=job, reason="not in fal's books")
        try:
            await self.world.db.run(decide)
        except Unresolvable:
            assert job.status != "submit_unknown" or job.fal_request_id is not None

    async def _look(self) -> list[Seen]:
        # fal first: what it has was written down by us before.
        books = await self.world.books()
        async with self.world.db.session() as session:
            await session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
            rows = (await session.execute(text(JOBS))).all()
            money = (await session.execute(text("SELECT available, held, spent FROM accounts"))).one()
        jobs = [
            Seen(name_of(prompt), str(job_id), status, charged, events)
            for job_id, prompt, status, charged, events in rows
        ]
        # Our side may be newer than fal's; then fal's side is looked at again.
        self.model.check(jobs, await self.world.books() if books else books, tuple(money))
        return jobs

    async def _rest(self) -> None:
        for _ in range(12):
            await make.let_time_pass(self.world.db)
            await self.world.dispatch()
            await self.world.ask()
            await self._minutes_at_fal()
            await make.let_time_pass(self.world.db)
            await self.world.rescue()
            if all(job.status in ENDINGS | {"submit_unknown"} for job in await self._look()):
                break
        await self.world.rescue()
        found = check(self.url, await self.world.books(), [one for one in self.model.ordered.values() if one])
        assert found.kept, (found.counts, found.notes)
        report = await verify(self.world.db, books=SimulatorBooks(self.world.fal, "http://fal"))
        assert report.ok, [(finding.check.name, finding.examples) for finding in report.findings]


async def _run_until_death(source: Any) -> None:
    """One round of a loop whose process may die in it."""
    try:
        pieces = await source.take(source.at_once)
    except (Died, SQLAlchemyError):
        return
    # A loop outlives what befell one piece of work; what a dead one left undone is somebody else's.
    for end in await asyncio.gather(*pieces, return_exceptions=True):
        assert end is None or isinstance(end, Died | SQLAlchemyError), end


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("examples", "steps"), [(5, 15), pytest.param(30, 30, marks=pytest.mark.slow)])
def test_any_order_of_events_keeps_the_promises(databases, tmp_path, examples, steps):
    given = os.environ.get("SEED", "")
    number = int(given) if given else random.randrange(1_000_000)

    class Here(Machine):
        def __init__(self) -> None:
            super().__init__(databases, tmp_path)

    try:
        run_state_machine_as_test(
            seed(number)(Here),
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                print_blob=True,
                # Making it shorter runs it hundreds of times: only for whoever repeats it.
                phases=[Phase.generate, Phase.shrink] if given else [Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    except BaseException as error:
        error.add_note(f"Again: SEED={number} .venv/bin/pytest --timeout 0 tests/faults/test_state_machine.py")
        raise
