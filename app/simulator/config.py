"""Everything that can be set about a simulator before it starts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from app.simulator.faults import FaultRates
from app.simulator.tariff import DEFAULT_PRICE, UNIT_PRICES


@dataclass(frozen=True, slots=True)
class SimulatorConfig:
    """One fal account in a box. Times are seconds of the simulator's own clock unless said otherwise."""

    public_url: str
    """Where callers reach it; the base of every URL it names."""
    data_dir: Path | None = None
    """Books, signing key and files are kept here; None = in memory and a temporary folder."""

    keys: frozenset[str] = frozenset()
    """API keys that are let in; empty = any."""
    admin_keys: frozenset[str] = frozenset()
    """Keys that may read billing; empty = every accepted key."""
    user_id: str = "user-simulator"
    apps: frozenset[str] = frozenset()
    """`owner/app` names that exist; empty = every name does."""
    balance: Decimal | None = None
    """Prepaid credit in dollars, the account locks when it's spent; None = endless."""

    concurrency: int = 10
    queue_s: float = 1.0
    run_s: float = 3.0
    result_kept_s: float = 3600.0
    large_result_kept_s: float = 360.0
    comment_s: float = 15.0
    """Real seconds between the comment lines of a status stream."""

    webhook_timeout_s: tuple[float, float] = (15.0, 120.0)
    """Real seconds a target has to answer: the first attempt, every later one."""
    webhook_retry_s: tuple[float, ...] = (2, 4, 8, 16, 32, 60, 120, 300, 600, 900)
    allow_private_webhooks: bool = True
    """fal refuses private and loopback targets; a simulator beside its gateway can't."""
    webhook_for_cancelled: bool = False
    """Not known of fal. Off, since then nobody may count on it."""
    signing_seed: bytes | None = None
    """32 bytes of the Ed25519 key; None = the one in data_dir, made at first start."""

    prices: Mapping[str, Decimal] = field(default_factory=lambda: UNIT_PRICES)
    """Endpoint id to unit price."""
    default_price: Decimal = DEFAULT_PRICE
    billing_delay_s: float = 5.0
    billable_units_header: bool = True
    history_lists_queued: bool = False
    """Whether requests/by-endpoint shows what hasn't started. Not known of fal; off is the harder case."""
    history_delay_s: float = 0.0

    max_body_bytes: int = 10 * 1024 * 1024
    max_upload_bytes: int = 500 * 1024 * 1024

    seed: int | None = None
    faults: FaultRates = field(default_factory=FaultRates)

    def unit_price(self, endpoint: str) -> Decimal:
        return self.prices.get(endpoint, self.default_price)
