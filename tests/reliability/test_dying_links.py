"""A link that dies is noticed in time and told as it is; one that is only bad lives on."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import muxado
from muxado import Config, ErrorCode, Session, Stream
from tests.patience import patience

from ..helpers import exchange, opened, running
from .conftest import Line, NewLine
from .peer import Peer
from .relay import Relay

pytestmark = pytest.mark.anyio

# Dead peers are noticed within the sum.
INTERVAL = 0.15
TIMEOUT = 0.25
PINGS: dict[str, Any] = {"ping_interval": INTERVAL, "ping_timeout": TIMEOUT}
# What a busy machine may add.
SLACK = patience(5)

MEGABIT = 1_000_000 / 8  # bytes per second


async def silence_until(session: Session) -> float:
    """Wait for a session's end, and return for how long its peer had said nothing."""
    async with asyncio.timeout(INTERVAL + TIMEOUT + SLACK):
        await session.wait_closed()
    return time.time() - session.last_heard_at


@pytest.mark.parametrize("security", ["plain"], indirect=True)
async def test_a_dead_peer_is_noticed_within_the_sum_of_the_timeouts(new_line: NewLine) -> None:
    interval = timeout = 0.5
    line = await new_line(ping_interval=interval, ping_timeout=timeout)
    await asyncio.gather(*[session.ping() for session in line.ends])
    line.relay.hold()
    for took in await asyncio.gather(*[silence_until(session) for session in line.ends]):
        assert interval + timeout - 0.1 < took < interval + timeout + SLACK


async def test_a_black_hole_is_noticed_by_both_ends(new_line: NewLine) -> None:
    line = await new_line(**PINGS)
    async with (
        opened(line.client, line.server) as (stream, other),
        running(stream.read()) as here,
        running(other.read()) as there,
    ):
        await line.client.ping()
        line.relay.hold()
        times = await asyncio.gather(*[silence_until(session) for session in line.ends])
        assert min(times) > TIMEOUT / 2
        for reading in (here, there):
            with pytest.raises(muxado.PeerTimeout):
                await reading
    for session in line.ends:
        reason = session.close_reason
        assert reason is not None
        assert (reason.clean, reason.by_peer) == (False, False)
        with pytest.raises(muxado.PeerTimeout):
            session.open()


@pytest.mark.parametrize("end", ["server", "client"])
async def test_a_black_hole_one_way_is_noticed_by_both_ends(new_line: NewLine, end: str) -> None:
    other = "of_client" if end == "server" else "of_server"
    line = await new_line(**PINGS, **{other: {"ping_timeout": patience(15)}})
    await asyncio.gather(*[session.ping() for session in line.ends])
    line.relay.hold(line.relay.to_server if end == "server" else line.relay.to_client)
    ends = line.ends if end == "client" else line.ends[::-1]  # the first hears nothing
    async with running(ends[0].accept()) as here, running(ends[1].accept()) as there:
        async with asyncio.timeout(INTERVAL + TIMEOUT + SLACK):
            await asyncio.gather(*[session.wait_closed() for session in ends])
        with pytest.raises(muxado.PeerTimeout):
            await here
        # This end has still waited for an answer when the other one gave up and hung up.
        with pytest.raises(muxado.SessionError) as caught:
            await there
    assert not isinstance(caught.value, muxado.PeerTimeout)


async def test_a_black_hole_while_data_is_stalled_is_noticed(new_line: NewLine) -> None:
    line = await new_line(**PINGS)

    async def flood(stream: Stream) -> None:
        while True:
            await stream.write(b"." * 50_000)

    async with (
        opened(line.client, line.server) as (stream, other),
        running(flood(stream)) as here,
        running(flood(other)) as there,
    ):
        await line.client.ping()
        line.relay.hold()
        await asyncio.gather(*[silence_until(session) for session in line.ends])
        for writing in (here, there):
            with pytest.raises(muxado.PeerTimeout):
                await writing
    for session in line.ends:
        assert session.stats().bytes_queued == 0
        assert session.stats().streams == 0


async def test_a_gap_shorter_than_the_timeouts_is_outlived(new_line: NewLine) -> None:
    line = await new_line(ping_interval=0.2, ping_timeout=patience(3))
    async with opened(line.client, line.server) as (stream, other):
        line.relay.hold()
        await stream.write(b"late")
        loop = asyncio.get_running_loop()
        loop.call_later(0.6, line.relay.release)
        assert await other.readexactly(4) == b"late"
        assert await line.client.ping() > 0
        assert not line.server.closed


# False alarms


async def pump(stream: Stream, until: float) -> int:
    """Write at full speed for a while; return how many bytes."""
    written = 0
    while time.monotonic() < until:
        await stream.write(b"." * 10_000)
        written += 10_000
    stream.write_eof()
    return written


async def drain(stream: Stream) -> int:
    """Read to the end; return how many bytes."""
    received = 0
    while data := await stream.read(65536):
        received += len(data)
    return received


# More is under way than passes within the timeout, and every ping stands behind it.
SATURATED: dict[str, Any] = {
    "ping_interval": 0.2,
    "ping_timeout": 0.2,
    "initial_window": 64 * 1024,
    "max_window": 64 * 1024,
    "write_high_water": 10_000,
}
SATURATED_FOR = 0.6


async def check_kept(line: Line) -> None:
    """See that no session is given up, though an answer takes longer than the timeout."""
    slowest = max([await line.client.ping() for _ in range(2)])
    assert slowest > SATURATED["ping_timeout"]
    assert [session.closed for session in line.ends] == [False, False]


async def test_heartbeats_on_a_saturated_line_raise_no_false_alarm(new_line: NewLine) -> None:
    line = await new_line(**SATURATED)
    async with opened(line.client, line.server) as (stream, other):
        line.relay.shape(rate=MEGABIT, delay=0.02)
        until = time.monotonic() + SATURATED_FOR
        async with asyncio.TaskGroup() as group:
            sent = [group.create_task(pump(end, until)) for end in (stream, other)]
            received = [group.create_task(drain(end)) for end in (other, stream)]
            await check_kept(line)
        for there, here in zip(sent, received, strict=True):
            assert there.result() == here.result()


@pytest.mark.parametrize("security", ["plain"], indirect=True)
async def test_a_line_that_is_saturated_one_way_raises_no_false_alarm(new_line: NewLine) -> None:
    line = await new_line(**SATURATED)
    async with opened(line.client, line.server) as (stream, other):
        line.relay.shape(rate=MEGABIT)
        async with asyncio.TaskGroup() as group:
            sent = group.create_task(pump(stream, time.monotonic() + SATURATED_FOR))
            received = group.create_task(drain(other))
            await check_kept(line)
        assert sent.result() == received.result()


# Connections that break


@pytest.fixture(params=["reset", "end"])
def breaking(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


async def test_what_came_before_the_break_is_read_first(new_line: NewLine, breaking: str) -> None:
    line = await new_line()
    data = bytes(range(256)) * 100
    async with (
        opened(line.client, line.server) as (stream, other),
        opened(line.client, line.server) as (finished, finished_end),
    ):
        for end in (stream, other, finished):
            await end.write(data)
        finished.write_eof()
        await asyncio.gather(*[session.ping() for session in line.ends])
        getattr(line.relay, breaking)()
        await asyncio.gather(*[session.wait_closed() for session in line.ends])
        for end in (stream, other):
            assert await end.readexactly(len(data)) == data
            with pytest.raises(muxado.SessionError) as caught:
                await end.read(1)
            assert not isinstance(caught.value, muxado.PeerTimeout)
            with pytest.raises(ConnectionError):
                await end.write(b"x")
        # This one ended in order before its session did.
        assert await finished_end.read() == data
        assert await finished_end.read() == b""
    for session in line.ends:
        reason = session.close_reason
        assert reason is not None
        assert (reason.clean, reason.by_peer) == (False, True)
        assert session.stats().memory_held == session.stats().streams == 0


@pytest.mark.parametrize("security", ["plain"], indirect=True)
async def test_a_cut_in_the_middle_of_a_frame_is_told_as_such(new_line: NewLine) -> None:
    line = await new_line(ping_interval=None)
    async with opened(line.client, line.server) as (stream, other):
        await line.client.ping()
        line.relay.cut_after(line.relay.to_server, 8 + 1000)
        await stream.write(b"x" * 5000)
        assert await other.readexactly(1000) == b"x" * 1000
        with pytest.raises(muxado.SessionError, match="in the middle of a frame"):
            await other.read(1)
        await line.server.wait_closed()
        await line.client.wait_closed()
    reason = line.server.close_reason
    assert reason is not None
    assert (reason.code, reason.by_peer, reason.clean) == (ErrorCode.UNKNOWN, True, False)


async def test_a_cut_at_any_byte_ends_both_sides(new_line: NewLine) -> None:
    for count in (1, 2, 3, 5, 7, 8, 9, 12, 15, 16, 17, 20, 31, 33, 64, 200):
        for reset in (False, True):
            line = await new_line()
            way = line.relay.ways[count % 2]
            line.relay.cut_after(way, count, reset=reset)
            async with line.ends[count % 2].open() as stream, asyncio.timeout(patience(5)):
                with pytest.raises(muxado.MuxadoError):
                    await write_for_ever(stream)
                await asyncio.gather(*[session.wait_closed() for session in line.ends])


async def write_for_ever(stream: Stream) -> None:
    while True:
        await stream.write(b"y" * 100)
        await stream.session.ping()


# Peers in a process of their own


# Another process may be kept from running for a while, so it is not called dead so soon.
OTHERS: dict[str, Any] = {"ping_interval": INTERVAL, "ping_timeout": 0.7}
NOTICED = sum(OTHERS.values()) + SLACK


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer(**OTHERS) as peer:
        yield peer


@pytest.fixture
async def session(no_complaints: None, peer: Peer) -> AsyncIterator[Session]:
    """A session with the other process that has carried something both ways."""
    async with muxado.connect(*peer.address, config=Config(**OTHERS)) as session:
        assert await exchange(session.open(), b"hello") == b"hello"
        yield session


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that wakes no waiter when it happens."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


@pytest.fixture(scope="module")
def patient_peer() -> Iterator[Peer]:
    with Peer(ping_interval=None) as peer:
        yield peer


@pytest.mark.parametrize("moment", ["idle", "before the ping is out", "waiting for a pong"])
async def test_a_blocked_event_loop_is_not_blamed_on_the_peer(
    no_complaints: None, patient_peer: Peer, moment: str
) -> None:
    with Relay(patient_peer.address) as relay:
        async with muxado.connect(*relay.address, config=Config(**OTHERS)) as session:
            relay.shape(delay=0.05)
            await session.ping()
            blocked = sum(OTHERS.values()) + 0.2
            if moment == "before the ping is out":
                # The first makes the ping's timer and the second run in the same loop turn.
                loop = asyncio.get_running_loop()
                loop.call_later(INTERVAL - 0.05, time.sleep, 0.1)
                loop.call_later(INTERVAL + 0.02, time.sleep, blocked)
                await asyncio.sleep(INTERVAL + 0.05)
            else:
                sent = session.stats().frames_sent
                if moment == "waiting for a pong":
                    await until(lambda: session.stats().frames_sent > sent)
                time.sleep(blocked)  # noqa: ASYNC251 - it is what this is about
            assert await exchange(session.open(), b"still there") == b"still there"
            # And from now on a dead peer is noticed as ever.
            relay.hold()
            with pytest.raises(muxado.PeerTimeout):
                async with asyncio.timeout(NOTICED):
                    await session.accept()


async def test_a_killed_peer_is_noticed_at_once(session: Session, peer: Peer) -> None:
    async with session.open() as stream:
        await stream.write(b"never read")
        await until(lambda: session.stats().memory_held == 10)
        peer.process.send_signal(signal.SIGKILL)
        assert await stream.readexactly(10) == b"never read"
        with pytest.raises(muxado.SessionError) as caught:
            await stream.read()
        assert not isinstance(caught.value, muxado.PeerTimeout | muxado.SessionClosed)
    async with asyncio.timeout(NOTICED):
        await session.wait_closed()
    assert session.close_reason is not None
    assert session.close_reason.by_peer


async def test_a_stopped_peer_is_noticed_in_time(session: Session, peer: Peer) -> None:
    async with session.open() as stream:
        await stream.write(b"echo")
        assert await stream.readexactly(4) == b"echo"
        peer.process.send_signal(signal.SIGSTOP)
        with pytest.raises(muxado.PeerTimeout):
            async with asyncio.timeout(NOTICED):
                await stream.read()
    await session.wait_closed()
    peer.process.send_signal(signal.SIGCONT)
    assert "timeout" not in await peer.next_end()


async def test_a_peer_that_goes_on_in_time_is_kept(no_complaints: None) -> None:
    # The peer's own timeouts are shorter than its sleep, and it doesn't blame us for it.
    with Peer(**PINGS) as peer:
        config = Config(ping_interval=0.2, ping_timeout=patience(10))
        async with (
            muxado.connect(*peer.address, config=config) as session,
            session.open() as stream,
        ):
            await stream.write(b"1")
            assert await stream.readexactly(1) == b"1"
            peer.process.send_signal(signal.SIGSTOP)
            before = time.monotonic()
            await stream.write(b"2")
            loop = asyncio.get_running_loop()
            loop.call_later(2 * (INTERVAL + TIMEOUT), peer.process.send_signal, signal.SIGCONT)
            assert await stream.readexactly(1) == b"2"
            assert time.monotonic() - before > INTERVAL + TIMEOUT
            assert await session.ping() < patience(1)
            assert await exchange(session.open(), b"3") == b"3"
