"""Pairs of connected sessions in one process, for tests of your own protocols.

They are real sessions, but need no address, port or network. Each gives
``(client_session, server_session)``::

    with muxado.testing.sync_pair() as (client, server):
        ...

Leaving the block closes both sessions in order, or aborts them if it raises.

Under trio the bytes go through trio's own streams in memory, which take no time. asyncio's
transports and the front end for threads need sockets, so they use a `socket.socketpair()`, a
buffer in the kernel's memory. Backpressure, half-closes and wake-ups in a test are therefore the
same as in your program.
"""

from .pairs import asyncio_pair, sync_pair, trio_pair

__all__ = ["asyncio_pair", "sync_pair", "trio_pair"]
