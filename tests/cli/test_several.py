"""Several processes behind one port: replaced when they die, and none outlives its parent."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

SCRIPT = """
import os, signal, sys
from app import logs
from app.cli import several
logs.setup("CRITICAL", json=False)
several.SOUND_S = float(sys.argv[1])
def serve():
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    # One write, so that two don't run into each other.
    os.write(1, f"{os.getpid()}\\n".encode())
    if sys.argv[2] == "fails":
        raise RuntimeError("no port")
    while True:
        signal.pause()
if sys.argv[2] == "told":
    parent, set_one, told = os.getpid(), signal.signal, []
    def told_first(*given):
        if os.getpid() != parent and not told:
            told.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
        return set_one(*given)
    signal.signal = told_first
several.Several(2, serve).run()
"""


@contextmanager
def started(sound_s: float = 0.0, how: str = "serves") -> Iterator["subprocess.Popen[str]"]:
    command = (sys.executable, "-c", SCRIPT, str(sound_s), how)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=20)


def pids(process: "subprocess.Popen[str]", count: int) -> set[int]:
    assert process.stdout is not None
    return {int(process.stdout.readline()) for _ in range(count)}


def test_who_dies_is_replaced_and_all_end_together():
    with started() as process:
        first = pids(process, 2)

        os.kill(min(first), signal.SIGKILL)
        (replacement,) = pids(process, 1)
        process.terminate()

        assert replacement not in first
        assert process.wait(20) == 0
        # Its end is the end of the last of them.
        assert process.communicate(timeout=20)[0] == ""


@pytest.mark.skipif(sys.platform != "linux", reason="Only Linux tells a child that its parent was killed.")
def test_none_outlives_a_killed_parent():
    with started() as process:
        pids(process, 2)

        process.kill()

        assert process.communicate(timeout=20)[0] == ""


def test_one_that_cannot_start_is_not_started_for_ever():
    with started(sound_s=60, how="fails") as process:
        out, err = process.communicate(timeout=20)

    assert process.returncode == 1
    # The second may be told to stop before it could say anything.
    assert 1 <= len(out.split()) <= 2
    assert "could not start" in err


def test_one_that_is_told_to_stop_before_it_can_listen_does():
    with started(sound_s=60, how="told") as process:
        out, _ = process.communicate(timeout=60)

    assert (process.returncode, out) == (1, "")
