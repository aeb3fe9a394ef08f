"""Cancelling a call after every number of turns that trio can give it."""

from __future__ import annotations

import hashlib
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

import trio

import muxado.trio
from muxado import Config
from muxado.trio import Session, Stream

T = TypeVar("T")

MOST_TURNS = 1000


class Turns(trio.abc.Instrument):
    """Does something once trio has run what there is to run for so many times."""

    def __init__(self, count: int, action: Callable[[], object]) -> None:
        self._left = count
        self._action = action

    def after_io_wait(self, timeout: float) -> None:
        self._left -= 1
        if self._left == 0:
            self._action()


class Cut:
    """Cancels what it is called with after some turns, if it still runs.

    Attributes:
        turns: how many.
        ran: True if the call was still running then.
        hit: True if it was cancelled; it may have been past its last checkpoint.
    """

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self.ran = False
        self.hit = False

    async def __call__(
        self, call: Callable[[], Awaitable[T]], begin: trio.Event | None = None
    ) -> T | None:
        """Run a call; return its result, or None if it was cancelled.

        The turns are counted from `begin` on.
        """
        result: T | None = None
        done = False
        scope = trio.CancelScope()

        async def run() -> None:
            nonlocal result, done
            with scope:
                result = await call()
            done = True

        def cancel() -> None:
            self.ran = not done
            scope.cancel()

        # An instrument sees the turns from outside: another task would be one among those that
        # trio runs in any order.
        turns = Turns(self.turns, cancel)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            if begin is not None:
                await begin.wait()
            if not self.turns:
                cancel()
            trio.lowlevel.add_instrument(turns)
        trio.lowlevel.remove_instrument(turns)
        self.hit = scope.cancelled_caught
        return result


class Security(NamedTuple):
    """The TLS of the two ends, None for none."""

    client: ssl.SSLContext | None
    server: ssl.SSLContext | None


Scenario = Callable[[Security, Cut], Awaitable[None]]


class Scenarios(dict[str, Scenario]):
    """Scenarios by the name of what they cancel."""

    def of(self, *names: str) -> Callable[[Scenario], Scenario]:
        """Add the decorated function."""

        def add(scenario: Scenario) -> Scenario:
            for name in names:
                assert name not in self
                self[name] = scenario
            return scenario

        return add


async def every_cut(scenario: Scenario, security: Security) -> int:
    """Cancel after 0, 1, 2 ... turns until the call is done before; return how many it took."""
    before = trio.lowlevel.current_statistics().tasks_living
    for turns in range(MOST_TURNS):
        cut = Cut(turns)
        await scenario(security, cut)
        assert trio.lowlevel.current_statistics().tasks_living == before
        if not cut.ran:
            return turns
    raise AssertionError(f"the call is not done after {MOST_TURNS} turns")


class Ends(NamedTuple):
    """The two sessions of one connection."""

    client: Session
    server: Session


async def socket_streams() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Return the two ends of a connection, for sessions to be made over them."""
    near, far = trio.socket.socketpair()
    return trio.SocketStream(near), trio.SocketStream(far)


@asynccontextmanager
async def connected(**settings: Any) -> AsyncIterator[Ends]:
    """Give two sessions."""
    config = Config(**settings)
    near, far = await socket_streams()
    async with (
        muxado.trio.client(near, config=config) as client,
        muxado.trio.server(far, config=config) as server,
    ):
        yield Ends(client, server)


@asynccontextmanager
async def busy(**settings: Any) -> AsyncIterator[Ends]:
    """Give two sessions with data under way; afterwards see that nothing is left of the block."""
    async with connected(**settings) as ends:
        async with opened(*ends) as (near, far), trio.open_nursery() as nursery:
            stopping = trio.Event()
            nursery.start_soon(chat, near, far, stopping)
            nursery.start_soon(echo, far)
            await ends.client.ping()
            yield ends
            stopping.set()
        await check(ends)


@asynccontextmanager
async def opened(near: Session, far: Session) -> AsyncIterator[tuple[Stream, Stream]]:
    """Open a stream and accept it; both ends are closed at the end of the block."""
    async with near.open(eager=True) as stream, await far.accept() as other:
        yield stream, other


async def echo(stream: Stream) -> None:
    """Send back what comes, and the end after it."""
    async for data in stream:
        await stream.send_all(data)
    await stream.send_eof()


async def chat(near: Stream, far: Stream, stopping: trio.Event) -> None:
    """Have one piece after the other echoed; not a byte goes astray, nor a byte of credit."""
    dice = random.Random(3)
    sent, echoed = hashlib.sha256(), hashlib.sha256()
    while not stopping.is_set():
        piece = dice.randbytes(dice.randrange(1, 400))
        await near.send_all(piece)
        sent.update(piece)
        echoed.update(await near.readexactly(len(piece)))
    for stream in (near, far):
        await stream.session.ping()  # grants that are under way have come
    here, there = near._core, far._core
    assert here.send_credit == there.recv_credit
    assert there.send_credit == here.recv_credit
    await near.send_eof()
    assert await near.receive_some() == b""
    assert echoed.digest() == sent.digest()


async def check(ends: Ends) -> None:
    """See that a session works in both directions, and that nothing is left of what was."""
    client, server = ends
    for near, far in ((client, server), (server, client)):
        async with opened(near, far) as (stream, other):
            assert stream.id == other.id, "a stream was left in the queue"
            await stream.send_all(b"there")
            assert await other.readexactly(5) == b"there"
            await other.send_all(b"back")
            assert await stream.readexactly(4) == b"back"
    for session in ends:
        await session.ping()
    for session in ends:
        stats = session.stats()
        assert (stats.streams, stats.memory_held, stats.bytes_queued) == (0, 0, 0)


def free_address() -> tuple[str, int]:
    """Return an address without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address: tuple[str, int] = sock.getsockname()
        return address
