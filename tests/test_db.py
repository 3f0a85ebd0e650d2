"""Transactions that come to an end, whatever Postgres does."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app import db as module


async def test_a_transaction_that_gets_no_answer_is_given_up_and_the_next_one_works(db, monkeypatch):
    monkeypatch.setattr(module, "ANSWER_S", 0.05)
    with pytest.raises(PoolTimeout):
        await db.run(lambda session: session.execute(text("SELECT pg_sleep(10)")))

    monkeypatch.undo()
    answer = await db.run(lambda session: session.scalar(text("SELECT 1")))

    assert answer == 1
