"""The project's own files hold true: locks, settings, containers, migrations, wheel, change log."""

import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from alembic import command
from alembic.script import ScriptDirectory
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML
from sqlalchemy import create_engine, inspect
from sqlalchemy.engine import make_url

from app.cli import app as callsheet
from app.migrate import config, newest, upgrade
from app.settings import Settings

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETTINGS = {name.upper() for name in Settings.model_fields}
LOCKS = ["requirements.lock", "requirements-dev.lock", "requirements-bench.lock"]
COMPOSE: dict[str, Any] = YAML(typ="safe").load(ROOT / "docker-compose.yml")
OURS = {name: service for name, service in COMPOSE["services"].items() if service["image"] == "callsheet"}


def run(*arguments: str | Path) -> None:
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- Locks ---------------------------------------------------------------------------------------------------


def pins(lock: str) -> dict[str, str]:
    found = re.findall(r"^([a-z0-9-]+)==([^ ;]+)", (ROOT / lock).read_text(), re.MULTILINE)
    return dict(found)


def wanted(*lists: list[str]) -> Iterator[Requirement]:
    for requirement in (Requirement(text) for texts in lists for text in texts):
        if requirement.name != PROJECT["project"]["name"]:
            yield requirement


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_holds_every_direct_dependency_within_its_range(lock):
    extras = PROJECT["project"]["optional-dependencies"]
    groups = {"requirements.lock": (), "requirements-dev.lock": ("dev",), "requirements-bench.lock": ("dev", "bench")}
    more = [PROJECT["dependency-groups"][group] for group in groups[lock]]
    locked = pins(lock)

    for requirement in wanted(PROJECT["project"]["dependencies"], *extras.values(), *more):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement


def test_locks_agree():
    run_time, dev, bench = (pins(lock).items() for lock in LOCKS)

    assert run_time <= dev <= bench


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_has_a_hash_for_every_pin_and_names_no_host(lock):
    text = (ROOT / lock).read_text()
    entries = re.split(r"\n(?=\S)", text)

    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text
    assert all("--hash=sha256:" in entry for entry in entries)


# --- Settings ------------------------------------------------------------------------------------------------


def assignments(text: str) -> dict[str, str]:
    return dict(re.findall(r"^#?([A-Z_]+)=(.*)$", text, re.MULTILINE))


def test_env_example_shows_every_setting_with_its_meaning_and_default(monkeypatch, tmp_path):
    text = (ROOT / ".env.example").read_text()
    shown = assignments(text)
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "env").write_text("".join(f"{name}={value}\n" for name, value in shown.items() if value))

    assert shown.keys() == SETTINGS | {"POSTGRES_PASSWORD"}
    for name, field in Settings.model_fields.items():
        assert f"# {field.description}\n#{name.upper()}=" in text
        assert (shown[name.upper()] == "") == (field.default is None), name
    assert Settings(_env_file=tmp_path / "env") == Settings(_env_file=None)


# --- Containers ----------------------------------------------------------------------------------------------


def test_compose_file_keeps_to_its_schema():
    run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")


def test_every_container_runs_a_real_command():
    (default,) = re.findall(r'^CMD \["(\w+)"\]$', (ROOT / "Dockerfile").read_text(), re.MULTILINE)

    assert OURS.keys() == {"api", "worker", "migrate", "simulator"}
    for tokens in ([default], *(service["command"] for service in OURS.values())):
        callsheet.parse_args(tokens, print_error=False, exit_on_error=False)


def test_compose_hands_on_every_setting_that_containers_do_not_fix():
    fixed_by_image = {"BIND", "PORT", "DATA"}

    for name in ("api", "worker", "migrate"):
        assert OURS[name]["environment"].keys() == SETTINGS - fixed_by_image
        assert all(f"{setting}=" in (ROOT / "Dockerfile").read_text() for setting in fixed_by_image)


def test_env_simulator_fills_in_what_compose_asks_for(monkeypatch):
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    path = ROOT / ".env.simulator"
    given = assignments(path.read_text())
    asked = set(re.findall(r"\$\{([A-Z_]+):\?", (ROOT / "docker-compose.yml").read_text()))

    settings = Settings(_env_file=path)

    assert asked <= given.keys() <= SETTINGS | asked | {"COMPOSE_PROFILES"}
    assert settings.allow_private_outputs
    assert given["COMPOSE_PROFILES"] in OURS["simulator"]["profiles"]
    simulated = OURS["simulator"]["command"][OURS["simulator"]["command"].index("--public-url") + 1]
    assert settings.fal_queue_url.startswith(simulated)
    assert settings.fal_api_url.startswith(simulated)
    assert settings.fal_jwks_url.startswith(simulated)


def test_containers_of_ours_can_write_nowhere_but_their_volumes():
    for service in OURS.values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]


def test_files_that_repeat_a_version_agree():
    makefile, dockerfile = ((ROOT / name).read_text() for name in ("Makefile", "Dockerfile"))
    (uv,) = re.findall(r"^UV_VERSION := (\S+)$", makefile, re.MULTILINE)

    assert f"uv=={uv} " in dockerfile
    assert f"ARG VERSION={PROJECT['project']['version']}\n" in dockerfile


# --- Migrations ----------------------------------------------------------------------------------------------


@pytest.fixture
def empty(server: str) -> Iterator[str]:
    """The address of a database without tables."""
    name = f"empty_{uuid4().hex}"
    with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def tables(url: str) -> set[str]:
    engine = create_engine(url)
    try:
        return set(inspect(engine).get_table_names()) - {"alembic_version"}
    finally:
        engine.dispose()


def test_migrations_make_the_tables_of_the_code_and_take_them_back(empty):
    upgrade(empty)
    command.check(config(empty))
    made = tables(empty)

    command.downgrade(config(empty), "base")
    assert not tables(empty)

    upgrade(empty)
    assert made == tables(empty) != set()


def test_the_newest_step_is_the_one_that_alembic_goes_to(empty):
    assert newest() == {*ScriptDirectory.from_config(config(empty)).get_heads()}


def test_two_processes_that_migrate_at_once_wait_for_each_other(empty):
    code = "import sys; from app.migrate import upgrade; upgrade(sys.argv[1])"
    both = [subprocess.Popen([sys.executable, "-c", code, empty], cwd=ROOT) for _ in range(2)]

    assert [one.wait(60) for one in both] == [0, 0]
    command.check(config(empty))


def test_every_constraint_and_index_has_a_name_of_ours(empty):
    upgrade(empty)

    with psycopg.connect(empty.replace("+psycopg", "")) as connection:
        rows = connection.execute(
            "SELECT relname, conname FROM pg_constraint JOIN pg_class c ON c.oid = conrelid"
            " WHERE contype <> 'n' AND connamespace = 'public'::regnamespace"
            " UNION SELECT tablename, indexname FROM pg_indexes WHERE schemaname = 'public'"
        ).fetchall()

    names = [name for table, name in rows if table != "alembic_version"]
    assert len(names) > 20
    assert [name for name in names if not re.match(r"(pk|uq|ck|fk|ix)_", name)] == []


def test_sql_of_the_migrations_can_be_read_beforehand_and_locks_nothing_for_long(tmp_path):
    sql = StringIO()
    offline = config(None)
    offline.output_buffer = sql

    command.upgrade(offline, "head", sql=True)

    (tmp_path / "migrations.sql").write_text(sql.getvalue())
    assert "CREATE TABLE jobs" in sql.getvalue()
    run(BIN / "squawk", "--config", ROOT / ".squawk.toml", tmp_path / "migrations.sql")


# --- What is handed out --------------------------------------------------------------------------------------


def test_wheel_holds_code_migrations_catalog_and_pages(tmp_path):
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path)

    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    there = {
        path.relative_to(ROOT).as_posix()
        for folder in ("app", "migrations")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert held == there
    assert {"migrations/script.py.mako", "app/catalog/format.json", "app/docs/static/start.js"} <= held


def test_change_log_begins_with_what_comes_next_or_this_version():
    newest, *_ = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert newest in {"Unreleased", PROJECT["project"]["version"]}


def test_commit_hooks_are_sound_and_fetch_nothing():
    hooks = YAML(typ="safe").load(ROOT / ".pre-commit-config.yaml")

    run(BIN / "prek", "validate-config", ".pre-commit-config.yaml")
    assert [repo["repo"] for repo in hooks["repos"]] == ["local"]
    for hook in hooks["repos"][0]["hooks"]:
        assert (BIN / Path(hook["entry"].split()[0]).name).exists()
