"""The pool for addresses that others chose: it connects to nothing but what a policy has judged."""

import socket
from collections.abc import Sequence
from functools import partial
from ipaddress import ip_address
from ssl import SSLContext

import httpx
from anyio import CapacityLimiter, to_thread
from ssrfguard import Address, BlockedAddressError, Policy, Resolver, resolve

from app.transport.dial import first_of
from app.transport.pool import PooledTransport


class GuardedTransport(httpx.AsyncBaseTransport):
    """
    `PooledTransport` within a *policy*: every request's address is judged by it, and every address its name leads to.

    A name is looked up once for a connection, and what was judged is what is connected to, so that a name that leads
    elsewhere a moment later leads nowhere. TLS still asks for the name. *resolver* stands in for the system's, in
    tests. Raises SSRFGuardError for what is refused, before a byte is sent.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        resolver: Resolver | None = None,
        at_once: int = 100,
        ssl_context: SSLContext | None = None,
    ) -> None:
        self.policy = policy
        self._resolver = resolver
        # A look-up can't be broken off. Those that are waited for take these places, and no thread of anybody else.
        self._lookups = CapacityLimiter(at_once)
        self._pool = PooledTransport(at_once=at_once, ssl_context=ssl_context, dial=self._dial)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        # Each time, even if a connection is open: it was made for another request's address.
        self.policy.check_url(str(request.url))
        return await self._pool.handle_async_request(request)

    async def aclose(self) -> None:
        """Close every idle connection."""
        await self._pool.aclose()

    async def _dial(self, host: str, port: int) -> socket.socket:
        # Judged anew as the pool understood it, whatever two parsers make of the same address.
        target = self.policy.check_url(f"https://{f'[{host}]' if ':' in host else host}:{port}")
        look_up = partial(resolve, target, policy=self.policy, resolver=self._resolver)
        judged = await to_thread.run_sync(look_up, limiter=self._lookups)
        chosen = judged[: self.policy.max_connection_attempts]
        sock = await first_of((each.family, socket.SOCK_STREAM, 0, "", each.sockaddr) for each in chosen)
        try:
            _check_peer(sock, chosen)
        except BaseException:
            sock.close()
            raise
        return sock


def _check_peer(sock: socket.socket, judged: Sequence[Address]) -> None:
    """Raises BlockedAddressError if something between us and the network led *sock* elsewhere."""
    peer = ip_address(str(sock.getpeername()[0]))
    if peer not in {each.ip for each in judged}:
        raise BlockedAddressError(str(peer), "is where the connection went, and not what was judged")
