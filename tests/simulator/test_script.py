"""The words of a script."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.simulator.errors import OUTCOMES
from app.simulator.faults import FaultRates, draw
from app.simulator.script import DELIVERIES, REFUSALS, BadScript, Script, from_header, from_prompt

WORDS = st.fixed_dictionaries(
    {},
    optional={
        "lost_answer": st.just(True),
        "lost_request": st.just(True),
        "refuse": st.sampled_from(sorted(REFUSALS)),
        "outcome": st.sampled_from(sorted(OUTCOMES)),
        "retries": st.integers(0, 12),
        "run_s": st.integers(0, 100),
        "webhook": st.lists(st.sampled_from(sorted(DELIVERIES)), min_size=1, max_size=4).map("+".join),
        "cancel": st.sampled_from(["finish", "stop", "stop_billed"]),
        "billed": st.sampled_from(["0", "1.25"]),
    },
)


@given(WORDS)
def test_marker_and_header_say_the_same(words):
    spelled = ", ".join(name if value is True else f"{name}={value}" for name, value in words.items())
    body = json.dumps({"prompt": f"A [red] fox [[sim: {spelled}]] runs"}).encode()

    assert Script.read(from_prompt(body)) == Script.read(from_header(json.dumps(words)))


@given(st.text(max_size=100))
def test_prompts_without_a_marker_say_nothing(prompt):
    if "[[" not in prompt:
        assert from_prompt(json.dumps({"prompt": prompt}).encode()) == {}


@given(st.dictionaries(st.text(max_size=8), st.one_of(st.text(max_size=8), st.integers(), st.none()), max_size=3))
def test_nonsense_is_refused_and_never_breaks_anything(words):
    with contextlib.suppress(BadScript):
        Script.read(words)


@pytest.mark.parametrize(
    ("said", "early", "wait_s", "forms"),
    [
        ("never", False, 0, ()),
        ("early", True, 0, ("ok",)),
        ("late", False, 60, ("ok",)),
        ("twice", False, 0, ("ok", "ok")),
        ("forged*2+ok", False, 0, ("forged", "forged", "ok")),
        ("early+twice", True, 0, ("ok", "ok")),
    ],
)
def test_webhook_plans(said, early, wait_s, forms):
    script = Script.read({"webhook": said})

    assert (script.early, script.webhook_s, script.webhook) == (early, wait_s, forms)


@given(st.randoms(use_true_random=False), st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=18, max_size=18))
def test_whatever_chance_draws_can_be_played(dice, chances):
    names = [name for name in FaultRates.__dataclass_fields__ if not name.endswith("_s")]
    rates = FaultRates(**dict(zip(names, chances, strict=False)))

    Script.read(draw(rates, dice))
