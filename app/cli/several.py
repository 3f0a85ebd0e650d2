"""Several processes behind one port: forked once everything is imported, and replaced when they die."""

import os
import signal
import time
import traceback
from collections.abc import Callable
from typing import Final, NoReturn

import structlog

from app.cli.trouble import Trouble
from app.postgres.child import PR_SET_PDEATHSIG, load_prctl

log = structlog.get_logger()

SOUND_S: Final = 5.0
"""Whoever dies sooner after its start would die again."""
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Several:
    """*serve*, in *count* processes of its own."""

    def __init__(self, count: int, serve: Callable[[], None]) -> None:
        self._count = count
        self._serve = serve
        self._pid = os.getpid()
        self._started: dict[int, float] = {}
        self._stopping = False

    def run(self) -> None:
        """
        Until told to stop; then they are told, and waited for.

        Raises Trouble if one of them ends within seconds of its start.
        """
        for number in STOP_SIGNALS:
            signal.signal(number, self._stop)
        for _ in range(self._count):
            self._start()
        while self._started:
            pid, status = os.wait()
            lived_s = time.monotonic() - self._started.pop(pid, 0.0)
            if self._stopping:
                continue
            log.error("server_died", pid=pid, code=os.waitstatus_to_exitcode(status))
            if lived_s < SOUND_S:
                self._stop()
                self._wait()
                raise Trouble("The HTTP server could not start; its log line says why.")
            self._start()

    def _start(self) -> None:
        # Until the child has its own ways to end, a signal to it must not find ours: it would be told and stay.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            pid = os.fork() or self._child()
            self._started[pid] = time.monotonic()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        if self._stopping:
            os.kill(pid, signal.SIGTERM)

    def _stop(self, *_: object) -> None:
        self._stopping = True
        for pid in self._started:
            os.kill(pid, signal.SIGTERM)

    def _wait(self) -> None:
        while self._started:
            pid, _ = os.wait()
            self._started.pop(pid, None)

    def _child(self) -> NoReturn:
        code = 1
        try:
            for number in STOP_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
            # Where the system can't tell, who kills the parent alone has to end its children, too.
            prctl = load_prctl()
            if prctl is not None:
                prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() == self._pid:
                self._serve()
            code = 0
        except BaseException:  # noqa: BLE001 - the last one to catch anything
            traceback.print_exc()
        finally:
            # Not by the parent's way out: what that has open isn't ours to close.
            os._exit(code)
