"""A session that has ended, or can do nothing for now, costs no time of the processor."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

import muxado
from muxado import Config, sync
from tests.patience import patience

# Seconds over which the processor's time is looked at, how much of it may go by, and how often it
# is looked at: a thread of another test may come to its end meanwhile. What turns in a circle takes
# all of the time, each time.
WATCHED = 0.15
MOST = 0.05
LOOKS = 5

MIB = 1024 * 1024
# Nothing ends for want of patience while it is watched.
CONFIG = Config(initial_window=16 * MIB, close_timeout=patience(20), ping_interval=None)


class Wire(NamedTuple):
    """A session's socket, and the other end of the connection, which no session has."""

    near: socket.socket
    far: socket.socket


@pytest.fixture
def wire() -> Iterator[Wire]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    with near, far:
        yield Wire(near, far)


# What the other end does. The session has written more than the kernel takes, and that is
# still to be sent if the connection lives.


def end_of_file(far: socket.socket) -> None:
    far.shutdown(socket.SHUT_WR)


def reset(far: socket.socket) -> None:
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()


def foreign_greeting(far: socket.socket) -> None:
    far.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


CASES = [
    pytest.param(end_of_file, False, id="end of file"),
    pytest.param(end_of_file, True, id="end of file, writes pending"),
    pytest.param(reset, True, id="reset, writes pending"),
    pytest.param(foreign_greeting, False, id="foreign greeting"),
]


def spent(before: float) -> float:
    return time.process_time() - before


@pytest.mark.anyio
@pytest.mark.parametrize(("act", "pending"), CASES)
async def test_an_asyncio_session_is_idle(
    no_tasks_left: None, wire: Wire, act: Callable[[socket.socket], None], pending: bool
) -> None:
    session = await muxado.connect(sock=wire.near, config=CONFIG)
    async with session.open(eager=True) as stream:
        if pending:
            await stream.write(bytes(16 * MIB))
        act(wire.far)
        with pytest.raises(muxado.MuxadoError):
            await stream.read(1)
        for _ in range(LOOKS):
            before = time.process_time()
            await asyncio.sleep(WATCHED)
            if spent(before) < MOST:
                break
        else:
            pytest.fail("it is never idle")
    session.abort()
    await session.wait_closed()


@pytest.mark.parametrize(("act", "pending"), CASES)
def test_a_session_for_threads_is_idle(
    wire: Wire,
    act: Callable[[socket.socket], None],
    pending: bool,
) -> None:
    session = sync.client(wire.near, config=CONFIG)
    with session.open(eager=True) as stream:
        if pending:
            stream.sendall(bytes(16 * MIB))
        act(wire.far)
        with pytest.raises(muxado.MuxadoError):
            stream.recv(1)
        for _ in range(LOOKS):
            before = time.process_time()
            time.sleep(WATCHED)
            if spent(before) < MOST:
                break
        else:
            pytest.fail("it is never idle")
    session.abort()
    session.wait_closed(patience(10))
