"""How answers leave: whole, and in order."""

import asyncio
from typing import Any, cast

from app.cli.serving import Together


class Wire:
    """A transport that notes what it is told to do."""

    def __init__(self) -> None:
        self.did: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.did.append(data)

    def close(self) -> None:
        self.did.append("closed")

    def is_closing(self) -> bool:
        return "closed" in self.did


async def turn() -> None:
    """Let everything happen that is due."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def together(wire: Wire) -> Any:
    return Together(cast("asyncio.Transport", wire), asyncio.get_running_loop())


async def test_the_head_and_the_body_of_an_answer_leave_as_one():
    wire = Wire()
    transport = together(wire)

    transport.write(b"head ")
    transport.write(b"body")

    assert wire.did == [b"head body"]
    await turn()
    assert wire.did == [b"head body"]


async def test_a_head_whose_body_takes_its_time_leaves_alone_and_first():
    wire = Wire()
    transport = together(wire)

    transport.write(b"head")
    await turn()
    transport.write(b"body")
    await turn()

    assert wire.did == [b"head", b"body"]


async def test_what_was_written_leaves_before_the_connection_is_closed():
    wire = Wire()
    transport = together(wire)

    transport.write(b"the end")
    transport.close()
    await turn()

    assert wire.did == [b"the end", "closed"]
    assert transport.is_closing()
