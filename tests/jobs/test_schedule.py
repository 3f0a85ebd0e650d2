"""When fal is asked about a job."""

from hypothesis import given
from hypothesis import strategies as st

from app.jobs.schedule import LONGEST_S, ask_s

PAUSE = st.floats(min_value=0.1, max_value=60)


@given(st.integers(min_value=0, max_value=100_000), PAUSE)
def test_pauses_grow_up_to_five_minutes(asked, progress_s):
    now, later = ask_s(asked, progress_s=progress_s), ask_s(asked + 1, progress_s=progress_s)

    assert progress_s <= now <= later <= LONGEST_S


@given(st.integers(min_value=0, max_value=1000), PAUSE, st.floats(min_value=0.001, max_value=10_000))
def test_no_pause_runs_far_past_the_expected_finish(asked, progress_s, left_s):
    assert progress_s <= ask_s(asked, progress_s=progress_s, left_s=left_s) <= left_s + progress_s + 1e-9


@given(st.integers(min_value=0, max_value=1000), PAUSE, st.floats(max_value=0, allow_nan=False))
def test_a_job_that_is_overdue_is_asked_about_with_growing_pauses(asked, progress_s, left_s):
    assert ask_s(asked, progress_s=progress_s, left_s=left_s) == ask_s(asked, progress_s=progress_s)
