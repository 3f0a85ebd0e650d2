"""
HTTP/1.1 beneath httpx: a transport whose pool does as well with a hundred requests in flight as with one.

httpx's own looks at every connection, with a system call each, at every request. Not `httpx-aiohttp`: it
reports a connection that broke after the request was sent as one that was never made, and a paid submit
would be sent again. Here a request is written at most once, and `ConnectError`, `ConnectTimeout`,
`PoolTimeout`, `LocalProtocolError` and `UnsupportedProtocol` say that not a byte of it was.

`dial` opens the socket, `connection` carries one exchange after the other, `pool` is what httpx sees. `guarded` is
the same for addresses that others chose.
"""

from app.transport.guarded import GuardedTransport
from app.transport.pool import PooledTransport

__all__ = ["GuardedTransport", "PooledTransport"]
