"""Which addresses may be called at all."""

from functools import cache
from ipaddress import IPv4Network, IPv6Network
from typing import Final
from urllib.parse import urlsplit

from ssrfguard import Policy, SSRFGuardError

LONGEST: Final = 2000
PORTS: Final = frozenset({80, 443, *range(1024, 65536)})


@cache
def policy(allowed: tuple[IPv4Network | IPv6Network, ...] = ()) -> Policy:
    """Public addresses, and those of *allowed* networks; web ports and those above 1023."""
    # Kept, for it looks at each of the 64,000 ports first.
    return Policy(allowed_networks=allowed, allowed_ports=PORTS)


def fault_of(policy: Policy, url: str) -> str | None:
    """
    Why *url* can't be called, as far as it shows without the network; None if nothing speaks against it.

    Where its name leads is judged anew by the guarded client each time it is called.
    """
    if fault := _malformed(url):
        return fault
    try:
        policy.check_url(url)
    except SSRFGuardError:
        return "This host or port isn't called from here; the operator can allow private networks."
    return None


def _malformed(url: str) -> str | None:
    if len(url) > LONGEST:
        return f"Use an address of at most {LONGEST} characters."
    if not url.isascii() or not url.isprintable() or " " in url:
        return "Use an address in plain ASCII, without spaces."
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return "Use a full address such as https://example.com/callbacks."
    if "@" in parts.netloc:
        return "Leave user and password out; callbacks are known by their signature."
    if "#" in url:
        return "Leave the fragment out; no server sees it."
    return None
