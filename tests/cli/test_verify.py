"""`callsheet verify`: what it says, and how it ends."""

import json

import psycopg

from tests import history
from tests.cli.commands import call, fresh
from tests.ports import free_port


def test_a_broken_promise_is_named_and_exits_with_one(database_url, tmp_path):
    history.fill(database_url, 200)
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        connection.execute("UPDATE accounts SET available = available + 1")

    told = call("verify", "--json", cwd=tmp_path, DATABASE_URL=database_url)
    read = call("verify", cwd=tmp_path, DATABASE_URL=database_url)

    assert (told.returncode, read.returncode) == (1, 1), told.stderr + read.stderr
    report = json.loads(told.stdout)
    (failure,) = [finding for finding in report["findings"] if finding["severity"] == "failure"]
    assert (report["ok"], failure["check"], failure["count"]) == (False, "account_is_its_entries", 20)
    assert len(failure["examples"]) == 20
    assert report["checked"]["jobs"] == 200
    assert failure["examples"][0] in read.stdout
    assert "A promise is broken." in read.stdout


def test_warnings_alone_are_told_and_exit_with_zero(database_url, tmp_path):
    history.fill(database_url, 200)

    read = call("verify", cwd=tmp_path, DATABASE_URL=database_url)

    assert read.returncode == 0, read.stderr
    assert "needs_a_verdict" in read.stdout


def test_what_cannot_be_reached_gets_one_clear_line_and_exits_with_three(database_url, tmp_path):
    nowhere = f"127.0.0.1:{free_port()}"

    none = call("verify", cwd=tmp_path)
    database = call("verify", cwd=tmp_path, DATABASE_URL=f"postgresql://nobody@{nowhere}/none")
    fal = call("verify", "--fal-url", f"http://{nowhere}", cwd=tmp_path, DATABASE_URL=database_url)
    unnamed = call("verify", "--fal", cwd=tmp_path, DATABASE_URL=database_url)

    for done in (none, database, fal, unnamed):
        assert (done.returncode, len(done.stderr.strip().splitlines())) == (3, 1), done.stderr
    assert nowhere in fal.stderr


def test_a_database_without_tables_is_told_to_migrate(server, tmp_path):
    done = call("verify", cwd=tmp_path, DATABASE_URL=server)

    assert done.returncode == 2
    assert "callsheet migrate" in done.stderr


def test_a_time_that_is_none_is_refused(database_url, tmp_path):
    done = fresh("verify", "--overdue-s", "0", cwd=tmp_path, DATABASE_URL=database_url)

    assert (done.returncode, "--overdue-s" in done.stderr) == (2, True)
