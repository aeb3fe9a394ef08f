"""A peer that reads nothing holds its writer back, whichever road leads to it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import muxado
from muxado import Config
from tests.contract.sides import FrontEnd
from tests.patience import patience

from .front_ends.conftest import web_front_ends
from .front_ends.sides import FRONT_ENDS
from .roads import SERVERS
from .test_websockets import GREETING

__all__ = ["web_front_ends"]

PIECE = bytes(64 * 1024)

# Bytes: what a writer may get rid of. Sockets hold most of it; the rest is the session's, the
# carrier's, and that of the server below.
BOUND = 12 * 1024 * 1024

# It is held back by the connection, and not by the stream's own credit at its beginning.
CONFIG = Config(initial_window=1024)
LEAST = 1024 + CONFIG.write_high_water

STILL = 0.3  # seconds without progress, after which a writer counts as held back

# A message with two frames: they open a stream, and grant more than is ever written.
FRAMES = bytes.fromhex("0000001200000003 0000042000000003 7fff0000")
HELLO = bytes((0x82, 0x80 | len(FRAMES))) + bytes(4) + FRAMES


@contextmanager
def unreading_client(port: int) -> Iterator[None]:
    """Dial a WebSocket, open a stream, grant it all, and read nothing but the handshake."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        sock.settimeout(patience(10))
        sock.connect(("127.0.0.1", port))
        sock.sendall(GREETING)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += sock.recv(1)
        sock.sendall(HELLO)
        yield


@pytest.mark.anyio
@pytest.mark.parametrize("name", [name for name in SERVERS if name != "uvicorn-websockets"])
async def test_a_writer_waits_for_a_peer_that_does_not_read(name: str) -> None:
    written = 0
    progress, held = asyncio.Event(), asyncio.Event()

    async def handle(session: muxado.Session) -> None:
        nonlocal written
        stream = await session.accept()
        progress.set()
        with contextlib.suppress(muxado.MuxadoError):
            while written < 4 * BOUND:
                await stream.write(PIECE)
                written += len(PIECE)
                progress.set()

    async with SERVERS[name](handle, CONFIG) as port:
        loop = asyncio.get_running_loop()
        client = unreading_client(port)
        await loop.run_in_executor(None, client.__enter__)
        await progress.wait()
        while not held.is_set():
            progress.clear()
            try:
                await asyncio.wait_for(progress.wait(), STILL)
            except TimeoutError:
                held.set()
        client.__exit__(None, None, None)
    assert LEAST < written < BOUND


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_in_every_front_end(name: str, web_front_ends: dict[str, FrontEnd]) -> None:
    with web_front_ends[name].listen(None, CONFIG) as listener, unreading_client(listener.port):
        session = listener.accept()
        stream = session.accept()
        written = 0
        with contextlib.suppress(TimeoutError):
            while written < 4 * BOUND:
                stream.write(PIECE, timeout=STILL)
                written += len(PIECE)
            assert LEAST < written < BOUND
        session.abort()
