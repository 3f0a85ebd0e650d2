"""How often things go wrong by chance, and the dice that decide it."""

from dataclasses import asdict, dataclass, fields
from random import Random
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class FaultRates:
    """The chance of each fault for one submit, from 0 to 1; those ending in `_s` are seconds."""

    lost_request: float = 0.0
    """The connection drops before anything was accepted."""
    lost_answer: float = 0.0
    """Accepted, and paid, but the connection drops instead of an answer."""
    slow_answer: float = 0.0
    slow_answer_s: float = 2.0
    refused_5xx: float = 0.0
    """503 and nothing accepted."""
    answered_5xx: float = 0.0
    """502 although it was accepted."""
    refused_429: float = 0.0
    failed: float = 0.0
    policy: float = 0.0
    policy_billed: float = 0.0
    stepped_back: float = 0.0
    """One attempt is lost and the request steps back into the queue."""
    cancel_stops: float = 0.0
    """A running request heeds a cancel; the others finish as if nothing was said."""
    webhook_lost: float = 0.0
    webhook_twice: float = 0.0
    webhook_late: float = 0.0
    webhook_late_s: float = 30.0
    webhook_early: float = 0.0
    webhook_forged: float = 0.0
    """A forged webhook comes before the true one."""
    reads_5xx: float = 0.0
    """The first two reads of status or result answer 503."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 0 or (value > 1 and not name.endswith("_s")):
                raise ValueError(f"{name} is a chance between 0 and 1, not {value}")

    @classmethod
    def read(cls, given: dict[str, Any]) -> Self:
        """Rates as the admin endpoint gets them; what isn't named is 0."""
        unknown = sorted(given.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"no such fault: {', '.join(unknown)}")
        return cls(**{name: float(value) for name, value in given.items()})

    @property
    def any(self) -> bool:
        return any(value for name, value in asdict(self).items() if not name.endswith("_s"))


Chance = tuple[bool, dict[str, Any]]


def draw(rates: FaultRates, dice: Random) -> dict[str, Any]:
    """
    What befalls the next submit, as a script's words.

    Every die is thrown for every submit, so with one seed the n-th submit meets the same fate whatever
    rates are set for the others.
    """

    def hit(rate: float) -> bool:
        return dice.random() < rate

    answer: list[Chance] = [
        (hit(rates.lost_request), {"lost_request": True}),
        (hit(rates.refused_5xx), {"refuse": "503"}),
        (hit(rates.refused_429), {"refuse": "429"}),
        (hit(rates.lost_answer), {"lost_answer": True}),
        (hit(rates.answered_5xx), {"answer": 502}),
        (hit(rates.slow_answer), {"slow_answer_s": rates.slow_answer_s}),
    ]
    ending: list[Chance] = [
        (hit(rates.failed), {"outcome": "runner_server_error"}),
        (hit(rates.policy), {"outcome": "policy"}),
        (hit(rates.policy_billed), {"outcome": "policy_billed"}),
    ]
    webhook: list[Chance] = [
        (hit(rates.webhook_lost), {"webhook": "never"}),
        (hit(rates.webhook_early), {"webhook": "early"}),
        (hit(rates.webhook_twice), {"webhook": "twice"}),
        (hit(rates.webhook_late), {"webhook_s": rates.webhook_late_s}),
        (hit(rates.webhook_forged), {"webhook": "forged+ok"}),
    ]
    alone: list[Chance] = [
        (hit(rates.stepped_back), {"retries": 1}),
        (hit(rates.cancel_stops), {"cancel": "stop"}),
        (hit(rates.reads_5xx), {"read_errors": 2}),
    ]
    script: dict[str, Any] = {}
    groups: list[list[Chance]] = [answer, ending, webhook, *([one] for one in alone)]
    for choices in groups:
        script |= next((words for chosen, words in choices if chosen), {})
    return script
