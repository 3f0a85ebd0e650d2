"""A sender that may call this machine."""

from collections.abc import AsyncIterator
from ipaddress import ip_network

import pytest

from app.callbacks import targets
from app.callbacks.sender import Sender
from app.db import Database
from app.http import guarded_transport, new_client

LOCAL = targets.policy((ip_network("127.0.0.0/8"),))


@pytest.fixture
async def sender(db: Database) -> AsyncIterator[Sender]:
    async with new_client(5, transport=guarded_transport(policy=LOCAL)) as http:
        yield Sender(db=db, http=http, owner="a", at_once=8, lease_s=60, timeout_s=30, disable_after_s=1000)
