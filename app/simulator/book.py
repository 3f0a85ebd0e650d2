"""
The books: what was accepted, on disk before anyone hears of it.

Callers wait while one commit is under way and share the next, so thousands of submits a second cost a few
commits. A kill -9 loses no request whose submit was answered, and no ending that a webhook told of. It may
lose submits that nobody has an answer to, and endings of the last milliseconds: such a request runs again
under its id and, its script being kept, ends the same way. Uploads under way and minted tokens are gone.
(WAL with synchronous=NORMAL: a power cut may take the last commits too.)
"""

import asyncio
import json
import logging
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from app.simulator.requests import Request

log: Final = logging.getLogger("simulator")
SCHEMA: Final = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS requests (request_id TEXT PRIMARY KEY, row TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, row TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
KEEP: Final = {
    "requests": "INSERT INTO requests VALUES (?, ?) ON CONFLICT DO UPDATE SET row = excluded.row",
    "files": "INSERT INTO files VALUES (?, ?) ON CONFLICT DO UPDATE SET row = excluded.row",
    "notes": "INSERT INTO notes VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
}


class Book:
    """The sqlite file, written by one thread; without a *path* nothing is kept and nobody waits."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="simulator-book")
        self._requests: dict[str, Request] = {}
        self._rows: list[tuple[str, str, str]] = []
        self._next: asyncio.Future[None] | None = None
        self._current: asyncio.Future[None] | None = None
        self._writing: asyncio.Task[None] | None = None
        if path is not None:
            self._db = sqlite3.connect(path, check_same_thread=False)
            self._db.executescript(SCHEMA)

    def requests(self) -> Iterator[Request]:
        """Every request kept, oldest first."""
        for (row,) in self._read("SELECT row FROM requests ORDER BY rowid"):
            yield Request.from_row(row)

    def files(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for path, row in self._read("SELECT path, row FROM files ORDER BY rowid"):
            yield path, json.loads(row)

    def noted(self, name: str) -> Any:
        """What was noted under *name*, or None."""
        rows = self._read("SELECT value FROM notes WHERE name = ?", name)
        return json.loads(rows[0][0]) if rows else None

    def _read(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        if self._path is None:
            return []
        with closing(self._db.execute(query, values)) as cursor:
            return cursor.fetchall()

    def write(self, request: Request) -> None:
        """Keep *request* as it stands, with the next commit."""
        if self._path is not None:
            self._requests[request.request_id] = request
            self._begin()

    def write_file(self, path: str, row: dict[str, Any]) -> None:
        self._add("files", path, row)

    def note(self, name: str, value: Any) -> None:
        self._add("notes", name, value)

    def _add(self, table: str, key: str, value: Any) -> None:
        if self._path is not None:
            self._rows.append((table, key, json.dumps(value)))
            self._begin()

    async def committed(self) -> None:
        """Wait until everything written so far is on disk; raises what kept it from getting there."""
        commit = self._next or self._current
        if commit is not None:
            await asyncio.shield(commit)

    async def close(self) -> None:
        if self._writing is not None:
            await self._writing
        self._thread.shutdown()
        if self._path is not None:
            self._db.close()

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        self._next = self._next or loop.create_future()
        self._writing = self._writing or loop.create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._next is not None:
                # One turn of the loop, for those who ordered in the same moment.
                await asyncio.sleep(0)
                self._current, self._next = self._next, None
                requests, rows = self._requests, self._rows
                self._requests, self._rows = {}, []
                rows += [("requests", request_id, request.to_row()) for request_id, request in requests.items()]
                await self._written(self._current, rows)
        finally:
            self._writing = self._current = None

    async def _written(self, commit: asyncio.Future[None], rows: list[tuple[str, str, str]]) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._commit, rows)
        except sqlite3.Error as error:
            # Whoever waits for this commit must not say "accepted"; who comes later may have more luck.
            log.exception("simulator_book_failed")
            commit.set_exception(error)
            commit.exception()
        else:
            commit.set_result(None)

    def _commit(self, rows: list[tuple[str, str, str]]) -> None:
        with self._db:
            for table, key, value in rows:
                self._db.execute(KEEP[table], (key, value))
