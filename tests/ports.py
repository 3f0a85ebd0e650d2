"""Ports for who is told where to listen, a process that has yet to start, or where nobody is to be."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Final

GIVEN_OUT: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""What the system gives whoever asks for any port, and each connection that goes out."""
END: Final = 32_768
"""Elsewhere, too, it gives out none below."""
BLOCK: Final = 1000
BLOCKS: Final = 12


def free_port() -> int:
    """A port of this machine that nobody has, nor is given before it was the turn of BLOCK others."""
    while True:
        port = next(_turns())
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@cache
def _turns() -> Iterator[int]:
    """The ports of this test process, for ever: no other of the same run has them."""
    end = min(END, int(GIVEN_OUT.read_text().split()[0])) if GIVEN_OUT.exists() else END
    if end < 1024 + BLOCK * BLOCKS:
        # The system gives out nearly all of them.
        end = END
    block = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % BLOCKS
    first = end - BLOCK * (block + 1)
    # Two runs side by side are hardly ever at the same place.
    begin = os.getpid() * 37 % BLOCK
    return cycle([first + (begin + turn) % BLOCK for turn in range(BLOCK)])
