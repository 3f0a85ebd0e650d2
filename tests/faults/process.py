"""
The nursery: starts real `callsheet` processes quickly, and lets one die or halt at an exact place.

    python -m tests.faults.process        # orders as lines of JSON on stdin, answers on stdout

It imports everything once and forks, so that a process is up in a fraction of the time. When its stdin
closes it kills every child and ends: whoever is killed in the middle of a test leaves nothing behind.

A child wraps what the product calls, from outside the product. `POINTS={"take:before_commit": "kill"}` kills
it with SIGKILL there; "hold" halts the whole process for as long as the pipe of that name in POINTS_DIR is open.
The points: `<function>:before_commit` (all statements are done), `<function>:after_commit`, and around each
call to fal `submit|status|result|file:`, or to a caller `callback:`, `before_call`, `sent` (the last byte is out),
`answered` (of a file and a callback: begun).
"""

import gc
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

import httpx

NOTHING_DONE: Final[tuple[Any, ...]] = ([], ([], {}))
"""What a round that found no work returns; it is no step."""


def reach(point: str) -> None:
    """Be at *point*; what was ordered for it happens, once."""
    orders: dict[str, str] = json.loads(os.environ.get("POINTS", "{}"))
    what = orders.pop(point, None)
    if what is None:
        return
    os.environ["POINTS"] = json.dumps(orders)
    folder = Path(os.environ["POINTS_DIR"])
    if what == "kill":
        (folder / f"{point}.reached").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    # Blocks the only thread until the other end was opened and closed, so nothing else of this process moves.
    pipe = os.open(folder / point, os.O_RDONLY)
    os.read(pipe, 1)
    os.close(pipe)


def name_of_step(work: Any) -> str:
    """The function that does the work of a transaction."""
    while isinstance(work, partial):
        work = work.func
    return getattr(work, "__name__", "")


def watch_commits() -> None:
    """Make every transaction of the product pass its two points, named for the function that does its work."""
    from app.db import Database  # noqa: PLC0415

    run, run_one = Database.run, Database.run_one

    async def watched(self: Database, work: Callable[[Any], Awaitable[Any]]) -> Any:
        name = name_of_step(work)

        async def marked(session: Any) -> Any:
            done = await work(session)
            if done not in NOTHING_DONE:
                # What was only added to the session would else be sent after this point, with the commit.
                await session.flush()
                reach(f"{name}:before_commit")
            return done

        done = await run(self, marked)
        if done not in NOTHING_DONE:
            reach(f"{name}:after_commit")
        return done

    async def watched_one(self: Database, work: Callable[[Any], Awaitable[Any]], **options: Any) -> Any:
        name = name_of_step(work)

        async def marked(connection: Any) -> Any:
            # The statement is its own commit; what can be before that is before all of it.
            reach(f"{name}:before_commit")
            return await work(connection)

        done = await run_one(self, marked, **options)
        reach(f"{name}:after_commit")
        return done

    Database.run = watched  # type: ignore[method-assign]
    Database.run_one = watched_one  # type: ignore[method-assign]
    watch_few(Database)


def watch_few(database: Any) -> None:
    """The same for those of a few statements, the last of which goes out together with the commit."""
    from app.lines import NOTHING_WRITTEN  # noqa: PLC0415

    run_few = database.run_few

    async def watched(self: Any, work: Callable[[Any], Awaitable[Any]]) -> Any:
        name = name_of_step(work)

        async def marked(ask: Any) -> Any:
            async def marked_ask(*asked: Any, commit: bool = False) -> Any:
                if commit and NOTHING_WRITTEN not in asked:
                    reach(f"{name}:before_commit")
                return await ask(*asked, commit=commit)

            return await work(marked_ask)

        done = await run_few(self, marked)
        if done not in NOTHING_DONE:
            reach(f"{name}:after_commit")
        return done

    database.run_few = watched


def name_of(method: str, path: str) -> str | None:
    """What a call is about, or None if it has no points."""
    if path.startswith("/queue/"):
        return "submit" if method == "POST" else "status" if path.endswith("/status") else "result"
    if path == "/callbacks":
        return "callback"
    return "file" if path.startswith("/files/") else None


def watch_calls() -> None:
    """Make every call to fal's queue or to a caller, and every download of a file, pass its three points."""
    from app.transport.connection import Connection  # noqa: PLC0415
    from app.transport.pool import PooledTransport  # noqa: PLC0415

    def watch(transport: type[httpx.AsyncBaseTransport]) -> None:
        call = transport.handle_async_request

        async def watched(self: httpx.AsyncBaseTransport, request: httpx.Request) -> httpx.Response:
            name = name_of(request.method, request.url.path)
            if name is None:
                return await call(self, request)

            async def trace(event: str, info: Any) -> None:
                if event.endswith("send_request_body.complete"):
                    reach(f"{name}:sent")

            request.extensions["trace"] = trace
            reach(f"{name}:before_call")
            answer = await call(self, request)
            reach(f"{name}:answered")
            return answer

        transport.handle_async_request = watched  # type: ignore[method-assign]

    send = Connection.send

    def watched_send(self: Connection, head: bytes, body: bytes) -> None:
        send(self, head, body)
        method, path, _ = head.decode("latin-1").split(" ", 2)
        if name := name_of(method, path.partition("?")[0]):
            reach(f"{name}:sent")

    Connection.send = watched_send  # type: ignore[method-assign]
    for transport in (PooledTransport, httpx.AsyncHTTPTransport):
        watch(transport)


def simulate(given: dict[str, Any]) -> None:
    """fal in a box with more to set than its command line has."""
    import asyncio  # noqa: PLC0415

    from app.simulator.config import SimulatorConfig  # noqa: PLC0415
    from app.simulator.serve import serve  # noqa: PLC0415

    port = given.pop("port")
    asyncio.run(serve(SimulatorConfig(**{**given, "data_dir": Path(given["data_dir"])}), "127.0.0.1", port))


def become(order: dict[str, Any]) -> NoReturn:
    """Turn this fork into the process that was ordered."""
    code = 1
    try:
        os.chdir(order["inside"])
        log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        errors = os.open(order.get("errors", order["log"]), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, into in ((nothing, 0), (log, 1), (errors, 2)):
            os.dup2(number, into)
        os.environ.update(order["environment"])
        if order["command"] == "simulate":
            simulate(order["settings"])
        elif order["command"] == "callsheet":
            from app.cli import main as callsheet  # noqa: PLC0415

            sys.argv = ["callsheet", *order["arguments"]]
            callsheet()
        else:
            from app import db  # noqa: PLC0415
            from app.cli import app  # noqa: PLC0415

            db.ANSWER_S = float(os.environ.get("ANSWER_S", db.ANSWER_S))
            watch_commits()
            watch_calls()
            app([order["command"]])
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001 - whatever it is, the fork must not go on as the nursery
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def obey(order: dict[str, Any], children: set[int]) -> int | None:
    """The number of the process that was started, or the exit code of the one asked about; None while it runs."""

    def ended(options: int = 0) -> int | None:
        if order["pid"] not in children:
            return 0
        found, status = os.waitpid(order["pid"], options)
        if not found:
            return None
        children.discard(found)
        return os.waitstatus_to_exitcode(status)

    match order["do"]:
        case "start":
            pid = os.fork()
            if pid == 0:
                become(order)
            children.add(pid)
            return pid
        case "signal":
            if (code := ended(os.WNOHANG)) is None:
                os.kill(order["pid"], order["number"])
                code = ended()
            return code
        case "wait":
            return ended()
        case _:
            return ended(os.WNOHANG)


def main() -> None:
    """Do what is ordered, line by line, until stdin closes."""
    import app.cli.incidents  # noqa: PLC0415
    import app.cli.jobs  # noqa: PLC0415
    import app.cli.keys  # noqa: PLC0415
    import app.cli.processes  # noqa: PLC0415
    import app.cli.up  # noqa: PLC0415
    import app.cli.verify  # noqa: PLC0415
    import app.simulator.serve  # noqa: F401, PLC0415

    # Nor need every fork look through all of it for what may go.
    gc.freeze()

    children: set[int] = set()
    for line in sys.stdin:
        sys.stdout.write(f"{json.dumps(obey(json.loads(line), children))}\n")
        sys.stdout.flush()
    for pid in list(children):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
