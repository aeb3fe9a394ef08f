"""What is left after a cancelled relay: its streams are over, and their session works on."""

from __future__ import annotations

import asyncio
import socket

import muxado

from ..helpers import opened
from .cancelling import Cut, Scenarios, Stage

RELAYS = Scenarios()


@RELAYS.of("relay")
async def relay(stage: Stage, cut: Cut) -> None:
    ends = await stage.new_pair()
    async with opened(*ends) as (one, first), opened(*ends) as (other, second):
        one.write_eof()
        other.write_eof()
        result = await cut(muxado.relay(first, second))
        assert result is None or result.ended == "end"
    await stage.check(ends)


@RELAYS.of("Relay.wait_closed")
async def wait_closed(stage: Stage, cut: Cut) -> None:
    ends = await stage.new_pair()
    near, far = socket.socketpair()
    loop = asyncio.get_running_loop()
    async with opened(*ends) as (one, passed):
        _, relay = await loop.create_connection(lambda: muxado.Relay(passed), sock=near)
        with far:
            far.shutdown(socket.SHUT_WR)
            one.write_eof()
            await cut(relay.wait_closed())
            assert (await relay.wait_closed()).ended == "end"
    await stage.check(ends)
