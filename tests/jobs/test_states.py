"""The moves a job may make."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.jobs.states import ENDINGS, MOVES, JobStatus, sources

STATUS = st.sampled_from(list(JobStatus))


@given(STATUS)
def test_endings_have_no_way_out(target):
    assert not sources(target) & ENDINGS


@given(STATUS, STATUS)
def test_sources_are_the_moves_read_backwards(origin, target):
    assert (origin in sources(target)) == (target in MOVES[origin])


@given(STATUS.filter(lambda status: status not in ENDINGS), st.sampled_from(sorted(ENDINGS)))
def test_fals_verdict_is_welcome_in_every_unfinished_status(status, ending):
    assert ending in MOVES[status]


@given(st.lists(STATUS, max_size=30))
def test_no_walk_leaves_an_ending(targets):
    status, ended = JobStatus.QUEUED, None
    for target in targets:
        if target in MOVES[status]:
            status = target
        if ended is None and status in ENDINGS:
            ended = status

    assert ended is None or status is ended


@pytest.mark.parametrize("status", [JobStatus.SUBMITTED, JobStatus.IN_PROGRESS])
def test_a_job_at_fal_never_goes_back_to_be_sent_again(status):
    assert JobStatus.QUEUED not in MOVES[status]
    assert JobStatus.SUBMITTING not in MOVES[status]


def test_only_a_queued_job_is_sent():
    assert sources(JobStatus.SUBMITTING) == {JobStatus.QUEUED}
