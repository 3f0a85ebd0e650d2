"""`callsheet incidents`: what it says, and how it ends."""

import json
from uuid import uuid4

import psycopg
import pytest

from tests.cli.commands import call, fresh

JOB = str(uuid4())


@pytest.fixture
def sql(database_url):
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as connection:
        yield connection.execute


def watched(sql):
    # Late enough for however long the commands take.
    sql("INSERT INTO chores (name, done_at, result) VALUES ('watch', now() + interval '1 hour', '{\"blind\": []}')")


def an_incident(sql):
    detail = json.dumps({"jobs": [JOB], "at_least": False})
    row = sql(
        "INSERT INTO incidents (id, kind, since, until, jobs, amount, detail)"
        " VALUES (gen_random_uuid(), 'rescue_failed', '2026-11-22 14:00+00', now(), 2, 4.2, %s) RETURNING id",
        [detail],
    ).fetchone()
    return str(row[0])


def test_all_is_well_exits_with_zero(sql, database_url, tmp_path):
    watched(sql)

    done = call("incidents", "list", cwd=tmp_path, DATABASE_URL=database_url)

    assert (done.returncode, done.stdout) == (0, "All is well: nothing needs a person.\n"), done.stderr


def test_nobody_watching_is_no_good_news(database_url, tmp_path):
    done = call("incidents", "list", cwd=tmp_path, DATABASE_URL=database_url)

    assert done.returncode == 1
    assert "callsheet work" in done.stdout
    assert "All is well" not in done.stdout


def test_an_incident_is_told_with_what_to_do_and_dismissed(sql, database_url, tmp_path):
    watched(sql)
    incident_id = an_incident(sql)

    listed = call("incidents", "list", cwd=tmp_path, DATABASE_URL=database_url)
    as_json = call("incidents", "list", "--json", cwd=tmp_path, DATABASE_URL=database_url)
    unsaid = call("incidents", "dismiss", incident_id, "--reason", " ", cwd=tmp_path, DATABASE_URL=database_url)
    dismissed = call("incidents", "dismiss", incident_id, "--reason", "saved", cwd=tmp_path, DATABASE_URL=database_url)
    after = call("incidents", "list", cwd=tmp_path, DATABASE_URL=database_url)
    closed = call("incidents", "list", "--closed", cwd=tmp_path, DATABASE_URL=database_url)

    assert listed.returncode == as_json.returncode == 1
    for said in (incident_id, "since 2026-11-22 14:00 UTC, 2 jobs, 4.20 USD", JOB, "callsheet incidents dismiss"):
        assert said in listed.stdout
    assert json.loads(as_json.stdout)["data"][0]["id"] == incident_id
    assert (unsaid.returncode, dismissed.returncode, after.returncode, closed.returncode) == (2, 0, 0, 0)
    assert "saved" in closed.stdout


def test_what_is_not_there_cannot_be_dismissed(database_url, tmp_path):
    done = fresh("incidents", "dismiss", str(uuid4()), "--reason", "x", cwd=tmp_path, DATABASE_URL=database_url)

    assert (done.returncode, "There is no incident" in done.stderr) == (2, True)
