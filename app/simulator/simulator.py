"""One running fal: everything it's made of, and how a request goes through it."""

import asyncio
import hashlib
import logging
from collections import Counter, deque
from collections.abc import Coroutine
from decimal import Decimal
from random import Random
from typing import Any, Final

import httpx

from app.simulator.account import Account
from app.simulator.book import Book
from app.simulator.clips import Clips, require_encoder
from app.simulator.clock import Clock
from app.simulator.config import SimulatorConfig
from app.simulator.faults import FaultRates, draw
from app.simulator.files import Files
from app.simulator.queue import Queue
from app.simulator.requests import Request
from app.simulator.runs import Runs
from app.simulator.signing import Keys
from app.simulator.transport import KeepAliveTransport
from app.simulator.webhooks import Webhooks

log: Final = logging.getLogger("simulator")


class Simulator:
    """
    fal, with its account, queue, files and books.

    Opened once a loop runs, so it can be made, looked at and thrown away without touching anything.
    """

    account: Account
    book: Book
    keys: Keys
    files: Files
    clips: Clips
    queue: Queue
    webhooks: Webhooks

    def __init__(self, config: SimulatorConfig, *, webhook_transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.config = config
        self.base = config.public_url.rstrip("/")
        self.clock = Clock()
        self.rates = config.faults
        self.dice = Random(config.seed)  # noqa: S311 - chance, not a secret
        self.next_scripts: deque[dict[str, Any]] = deque()
        self.submits: Counter[bytes] = Counter()
        self._faulted: Counter[str] = Counter()
        self.tally: Counter[str] = Counter()
        self._given_transport = webhook_transport
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Read the books and go on where they end."""
        require_encoder()
        folder = self.config.data_dir
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        config = self.config
        self.book = Book(folder / "simulator.db" if folder is not None else None)
        self.account = Account(config, self.clock, balance=config.balance)
        self.keys = Keys(folder, config.signing_seed)
        limit = config.max_upload_bytes
        self.files = Files(folder, self.book, self.clock, public_url=self.base, limit=limit)
        self.clips = Clips(self.files.folder)
        self.queue = Queue(self.clock, concurrency=config.concurrency, queue_s=config.queue_s, run_s=config.run_s)
        runs = Runs(config, self.queue, self.files, self.clips, self.spawn)
        self.queue.on_start, self.queue.on_done = runs.started, runs.done
        self.queue.on_stop, self.queue.on_end = runs.stopped, self._ended
        self._transport = self._given_transport or KeepAliveTransport()
        self.webhooks = Webhooks(config, self.clock, self.keys, self._transport, self._told)
        self._resume()

    async def close(self) -> None:
        self.clock.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.clips.close()
        await self.book.close()
        self.files.close()
        if self._given_transport is None:
            await self._transport.aclose()

    def _resume(self) -> None:
        self.clock.set(offset_s=float(self.book.noted("offset_s") or 0.0))
        account = self.book.noted("account") or {}
        self.account.locked_for = account.get("locked_for")
        if "balance" in account:
            self.account.balance = None if account["balance"] is None else Decimal(account["balance"])
        for request in list(self.book.requests()):
            self.queue.remember(request)
            self.submits[fingerprint(request)] += 1
            if request.result is not None:
                self.account.spent += request.result.amount
        for request in self.queue.requests.values():
            if not request.ended:
                self.queue.resume(request)
            elif not request.told:
                self.spawn(self._tell(request))

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do *work* beside everything else; it's cancelled when the simulator closes."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("simulator_task_failed", exc_info=error)

    # --- Orders ---------------------------------------------------------------------------------------------

    def fate(self, header: dict[str, Any] | None, marker: dict[str, Any]) -> dict[str, Any]:
        """The script of the next submit: its prompt's marker, its header, the queued one, or chance."""
        drawn = draw(self.rates, self.dice) if self.rates.any else {}
        if marker:
            return marker
        if header is not None:
            return header
        return self.next_scripts.popleft() if self.next_scripts else drawn

    def faults_met(self, request: Request) -> int:
        """How often this same order met its submit faults before now."""
        met = self._faulted[request.endpoint + request.body]
        self._faulted[request.endpoint + request.body] += 1
        return met

    def accept(self, request: Request) -> None:
        """Take an order on; from here on it may cost money."""
        self.submits[fingerprint(request)] += 1
        self.tally["accepted"] += 1
        self.queue.add(request)
        self.book.write(request)

    def get(self, request_id: str, *, app: str | None = None) -> Request | None:
        """The request, as long as fal still knows it."""
        request = self.queue.requests.get(request_id)
        if request is None or (app is not None and request.app != app) or self.expired(request):
            return None
        return request

    def expired(self, request: Request) -> bool:
        if request.result is None or request.ended_at is None:
            return False
        kept_s = self.config.result_kept_s
        if len(request.result.body) >= 10 * 1024:
            kept_s = self.config.large_result_kept_s
        if request.script.result_s is not None:
            kept_s = request.script.result_s
        return self.clock.now() - request.ended_at >= kept_s

    def set_rates(self, rates: FaultRates, seed: int | None) -> None:
        self.rates = rates
        if seed is not None:
            self.dice = Random(seed)  # noqa: S311 - chance, not a secret

    def set_account(self, *, locked_for: str | None, balance: Decimal | None) -> None:
        self.account.locked_for, self.account.balance = locked_for, balance
        kept = {"locked_for": locked_for, "balance": None if balance is None else str(balance)}
        self.book.note("account", kept)

    def set_clock(self, *, offset_s: float | None, advance_s: float, stopped: bool | None) -> None:
        self.clock.set(offset_s=offset_s, advance_s=advance_s, stopped=stopped)
        self.book.note("offset_s", self.clock.offset_s)

    # --- News -----------------------------------------------------------------------------------------------

    def _ended(self, request: Request) -> None:
        if request.result is not None:
            self.account.spent += request.result.amount
            self.tally["succeeded" if request.result.code < 400 else "failed"] += 1
        self.book.write(request)
        self.spawn(self._tell(request))

    async def _tell(self, request: Request) -> None:
        await self.book.committed()
        cancelled = request.result is not None and request.result.code == 499
        wanted = request.script.said_webhook or self.config.webhook_for_cancelled or not cancelled
        if wanted and request.webhook_url is not None:
            await self.webhooks.tell(request)
        else:
            request.told = True
            self._told(request)

    def _told(self, request: Request) -> None:
        request.show()
        self.book.write(request)


def fingerprint(request: Request) -> bytes:
    """Equal for two submits of one order to one webhook: the second is a payment too many."""
    said = "\n".join((request.endpoint, request.webhook_url or "", request.body))
    return hashlib.sha256(said.encode()).digest()
