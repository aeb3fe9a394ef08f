"""What happens in one turn with something else."""

from __future__ import annotations

import socket

import trio

from muxado.trio import listen


async def test_a_listener_closes_while_a_connection_arrives() -> None:
    for turns in [0, 1, 2, 3] * 10:
        async with listen("127.0.0.1", 0) as listener:
            for _ in range(3):
                await trio.lowlevel.checkpoint()  # it waits for connections
            with socket.create_connection(listener.addresses[0]):
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                await listener.aclose()
