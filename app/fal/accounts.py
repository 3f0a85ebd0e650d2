"""The fal accounts that jobs may go to, each with a key of its own."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from app.fal.client import FalClient, Unanswered
from app.fal.platform import Platform
from app.fal.storage import FalStorage


@dataclass(frozen=True, slots=True)
class Account:
    """One fal account: queue, history, file store, and how many jobs may be at fal on it at once (None = no cap)."""

    name: str
    queue: FalClient
    platform: Platform
    uploads: FalStorage
    at_once: int | None = None


class Accounts:
    """The accounts by name."""

    def __init__(self, accounts: Iterable[Account]) -> None:
        self._by_name = {account.name: account for account in accounts}

    def get(self, name: str) -> Account:
        """The account called *name*. Raises Unanswered if it is no longer configured: then nobody can ask."""
        if name not in self._by_name:
            raise Unanswered(f"fal account {name} is not configured")
        return self._by_name[name]

    @property
    def all(self) -> Iterable[Account]:
        """Every account that is configured."""
        return self._by_name.values()

    @property
    def caps(self) -> Mapping[str, int | None]:
        """How many jobs may be at fal at once, by account."""
        return {account.name: account.at_once for account in self.all}
