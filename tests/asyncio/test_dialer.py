"""`Dialer` for asyncio: it stays connected through all that can happen to its servers."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

import muxado
from muxado import Backoff, Config, Dialer, DialerState, ErrorCode, Session, Stream
from muxado.redial import MOST_DRAINING
from tests import inside
from tests.forking import living_child, needs_fork
from tests.killable import Killable, killable
from tests.patience import patience

from ..certificates import Tls
from ..helpers import cancel, echo, exchange, running

pytestmark = pytest.mark.anyio

HOST = "127.0.0.1"
QUICK = Backoff(first=0.01, most=0.05)
NEVER = Backoff(first=1000, most=1000)  # the next try has to be asked for, most likely


async def ask(stream: Stream) -> bytes:
    return await exchange(stream, b"hello")


@contextmanager
def closed() -> Iterator[socket.socket]:
    """Give a socket that refuses connections until it listens."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        yield sock


@contextmanager
def silent() -> Iterator[Any]:
    """Give the address of a server that accepts connections and says nothing."""
    with socket.create_server((HOST, 0)) as sock:
        yield sock.getsockname()


class Changes:
    """What `on_change` has told, and a way to wait for more of it."""

    def __init__(self) -> None:
        self.states: list[DialerState] = []
        self._told = asyncio.Event()

    def __call__(self, state: DialerState) -> None:
        self.states.append(state)
        self._told.set()

    async def reach(self, *states: str) -> None:
        """Wait until it has told these states in this order, with others between them."""
        while True:
            left = list(states)
            for state in self.states:
                if left and state == left[0]:
                    left.pop(0)
            if not left:
                return
            self._told.clear()
            await self._told.wait()


# Outages


async def test_streams_are_opened_on_the_session_that_lives(no_tasks_left: None) -> None:
    async with muxado.serve_streams(echo, HOST, 0) as server:
        async with Dialer(*server.addresses[0]) as dialer:
            session = await dialer.session()
            for _ in range(3):
                async with await dialer.open() as stream:
                    assert stream.session is session
                    assert await ask(stream) == b"hello"
            assert await dialer.call(ask) == b"hello"
            assert (dialer.state, dialer.last_error) == ("connected", None)
        assert session.close_reason is not None
        assert session.close_reason.clean
        assert dialer.state == "closed"


async def test_a_call_waits_through_an_outage(no_tasks_left: None) -> None:
    with closed() as sock:
        changes = Changes()
        async with Dialer(*sock.getsockname(), backoff=QUICK, on_change=changes) as dialer:
            assert dialer.state == "connecting"
            async with running(dialer.call(ask)) as calling:
                await changes.reach("waiting", "connecting", "waiting")
                assert isinstance(dialer.last_error, ConnectionRefusedError)
                server = await muxado.serve_streams(echo, sock=sock)
                async with server:
                    assert await calling == b"hello"
    assert changes.states[-1] == "closed"
    waits = [state.next_try or 0 for state in changes.states if state == "waiting"]
    assert waits == sorted(waits)
    assert waits[0] > 0


async def test_a_server_that_is_killed_and_started_again(no_tasks_left: None) -> None:
    with killable() as first:
        changes = Changes()
        async with Dialer(*first.address, backoff=QUICK, on_change=changes) as dialer:
            stream = await dialer.open()
            await stream.write(b"x")
            assert await stream.read(1) == b"x"
            async with running(stream.read(1)) as reading:
                first.kill()
                with pytest.raises(muxado.SessionError):
                    await reading
            await changes.reach("connected", "waiting")
            with killable(first.address[1]):
                assert await dialer.call(ask) == b"hello"
            stream.close()


async def test_a_server_that_is_started_again_at_another_address(no_tasks_left: None) -> None:
    with killable() as first, closed() as sock, killable() as last:
        addresses = [first.address, sock.getsockname(), last.address]
        async with Dialer(addresses=addresses, backoff=QUICK) as dialer:
            assert await dialer.call(ask) == b"hello"
            first.kill()
            while (session := await dialer.session()).remote_address != last.address:
                await session.wait_closed()
            assert await dialer.call(ask) == b"hello"


async def test_a_function_can_dial(no_tasks_left: None, tls: Tls) -> None:
    tries = 0

    class Busy(Exception):
        retry_after = 0.05

    async with muxado.serve_streams(echo, HOST, 0, ssl=tls.server) as server:

        async def dial() -> Session:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise Busy
            return await muxado.connect(*server.addresses[0], ssl=tls.client)

        loop = asyncio.get_running_loop()
        began = loop.time()
        async with Dialer(dial=dial, backoff=QUICK) as dialer:
            assert await dialer.call(ask) == b"hello"
            assert loop.time() - began >= 0.1
            assert isinstance(dialer.last_error, Busy)
        assert tries == 3
        # What `connect` returns will do as well.
        dialled = Dialer(dial=lambda: muxado.connect(*server.addresses[0], ssl=tls.client))
        async with dialled as dialer:
            assert await dialer.call(ask) == b"hello"


# Denials, and servers that say nothing


@pytest.mark.parametrize("way", ["abort", "go_away"])
async def test_a_denial_raises_from_every_call_that_waits(no_tasks_left: None, way: str) -> None:
    came = 0
    told = asyncio.Event()

    async def deny(session: Session) -> None:
        nonlocal came
        came += 1
        await told.wait()
        if way == "abort":
            session.abort(403)
        else:
            session.go_away(403, b"who are you?")
            await session.wait_closed()

    async with muxado.serve(deny, HOST, 0) as server:
        async with Dialer(*server.addresses[0], backoff=QUICK) as dialer:
            first = await dialer.session()
            sessions = aiter(dialer)
            assert await anext(sessions) is first
            async with (
                running(anext(sessions)) as iterating,
                running(dialer.serve(echo)) as serving,
            ):
                told.set()
                with pytest.raises((muxado.SessionAborted, muxado.PeerGone)) as caught:
                    await serving
                assert caught.value.code == 403
                with pytest.raises((muxado.SessionAborted, muxado.PeerGone)):
                    await iterating
            for call in (dialer.session, dialer.open, lambda: dialer.call(ask)):
                with pytest.raises((muxado.SessionAborted, muxado.PeerGone)):
                    await call()
            assert dialer.state == "failed"
            assert dialer.last_error is caught.value
            assert first.draining
        assert came == 1


async def test_a_certificate_that_does_not_hold_is_final(no_tasks_left: None, tls: Tls) -> None:
    async with (
        muxado.serve_streams(echo, HOST, 0, ssl=tls.server) as server,
        Dialer(*server.addresses[0], ssl=True) as dialer,
    ):
        with pytest.raises(ssl.SSLCertVerificationError):
            await dialer.open()
        assert dialer.state == "failed"


async def test_a_server_that_accepts_and_says_nothing_costs_a_timeout(
    no_tasks_left: None, tls: Tls
) -> None:
    with silent() as address:
        async with muxado.serve_streams(echo, HOST, 0, ssl=tls.server) as server:
            addresses = [address, server.addresses[0]]
            async with Dialer(
                addresses=addresses, ssl=tls.client, timeout=0.1, backoff=QUICK
            ) as dialer:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(dialer.open(), 0.01)
                session = await dialer.session()
                assert session.remote_address == server.addresses[0]
                assert isinstance(dialer.last_error, TimeoutError)


async def test_a_session_whose_peer_says_nothing_is_followed_by_the_next(
    no_tasks_left: None,
) -> None:
    config = Config(ping_interval=0.05, ping_timeout=0.05)
    with silent() as address:
        async with muxado.serve_streams(echo, HOST, 0) as server:
            addresses = [address, server.addresses[0]]
            async with Dialer(addresses=addresses, config=config, backoff=QUICK) as dialer:
                first = await dialer.session()
                assert first.remote_address == address
                await first.wait_closed()
                assert (await dialer.session()).remote_address == server.addresses[0]
                assert isinstance(dialer.last_error, muxado.PeerTimeout)


async def test_a_function_that_dials_for_too_long_is_cancelled(no_tasks_left: None) -> None:
    cancelled = asyncio.Event()

    async def dial() -> Session:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    changes = Changes()
    async with Dialer(dial=dial, timeout=0.05, backoff=NEVER, on_change=changes) as dialer:
        await changes.reach("waiting")
        assert cancelled.is_set()
        assert isinstance(dialer.last_error, TimeoutError)
        assert dialer.last_error.errno == errno.ETIMEDOUT


# Overlap


@asynccontextmanager
async def two_servers() -> AsyncIterator[tuple[muxado.Server, muxado.Server]]:
    async with (
        muxado.serve_streams(echo, HOST, 0) as first,
        muxado.serve_streams(echo, HOST, 0) as second,
    ):
        yield first, second


async def test_no_call_fails_over_a_drain_under_load(no_tasks_left: None) -> None:
    async with two_servers() as (first, second):
        addresses = [first.addresses[0], second.addresses[0]]
        async with Dialer(addresses=addresses, backoff=QUICK) as dialer:
            done = 0
            drained = asyncio.Event()

            async def work() -> None:
                nonlocal done
                after = 0
                while after < 20:
                    assert await dialer.call(ask) == b"hello"
                    done += 1
                    after += drained.is_set()

            async with asyncio.TaskGroup() as group:
                for _ in range(20):
                    group.create_task(work())
                while done < 200:  # noqa: ASYNC110
                    await asyncio.sleep(0)
                old = await dialer.session()
                await first.shutdown()
                drained.set()
            assert old.close_reason is not None
            assert old.close_reason.clean
            assert (await dialer.session()).remote_address == second.addresses[0]


@pytest.mark.parametrize("way", ["GOAWAY", "renew"])
async def test_both_sessions_carry_bytes_at_once(no_tasks_left: None, way: str) -> None:
    async with two_servers() as (first, second):
        addresses = [first.addresses[0], second.addresses[0]]
        changes = Changes()
        async with Dialer(addresses=addresses, backoff=QUICK, on_change=changes) as dialer:
            stream = await dialer.open()
            await stream.write(b"x")
            assert await stream.read(1) == b"x"
            (far,) = first.sessions
            if way == "GOAWAY":
                far.go_away()
                await changes.reach("connected", "draining", "connected")
            else:
                sessions = aiter(dialer)
                assert await anext(sessions) is stream.session
                dialer.renew()
                assert await anext(sessions) is await dialer.session()
            other = await dialer.open()
            assert (stream.session is other.session, dialer.state) == (False, "connected")
            for _ in range(10):  # in turn: neither has ended while the other one works
                for each in (stream, other):
                    await each.write(b"both")
                    assert await each.readexactly(4) == b"both"
            assert stream.session.draining
            assert not stream.session.closed
            assert await exchange(stream, b"") == b""  # its last stream is done
            assert (await stream.session.wait_closed()).clean
            stream.close()
            assert await exchange(other, b"on") == b"on"
            other.close()


async def test_renew_never_leaves_a_call_without_a_session(no_tasks_left: None) -> None:
    async with two_servers() as (first, second):
        dials = 0
        go_on = asyncio.Event()

        async def dial() -> Session:
            nonlocal dials
            dials += 1
            if dials == 2:
                await go_on.wait()
            return await muxado.connect(*(first, second)[dials - 1].addresses[0])

        async with Dialer(dial=dial) as dialer:
            old = await dialer.session()
            dialer.renew()
            while dials < 2:  # noqa: ASYNC110
                await asyncio.sleep(0)
            dialer.renew()  # there is a dial already
            assert await dialer.call(ask) == b"hello"
            assert await dialer.session() is old
            go_on.set()
            await old.wait_closed()
            assert await dialer.call(ask) == b"hello"
            assert dials == 2


async def test_a_session_whose_ids_are_used_up_is_followed_by_the_next(
    no_tasks_left: None,
) -> None:
    async with two_servers() as (first, second):
        addresses = [first.addresses[0], second.addresses[0]]
        async with Dialer(addresses=addresses, backoff=QUICK) as dialer:
            old = await dialer.session()
            inside.set_next_id(old._core, 2**31 + 1)
            with pytest.raises(muxado.StreamsExhausted):
                old.open()
            async with await dialer.open() as stream:
                assert stream.session is not old
                assert await ask(stream) == b"hello"
            assert (await old.wait_closed()).clean


async def test_a_peer_that_drains_every_session_gets_no_more_than_some(no_tasks_left: None) -> None:
    came = most = 0
    streams = []
    enough = asyncio.Event()

    async def drain(session: Session) -> None:
        nonlocal came, most
        streams.append(session.open(eager=True))  # nothing ends it
        session.go_away()
        came += 1
        most = max(most, len(server.sessions))
        if came == MOST_DRAINING + 10:
            enough.set()
        await session.wait_closed()

    backoff = Backoff(first=0.001, most=0.01)
    async with (
        muxado.serve(drain, HOST, 0) as server,
        Dialer(*server.addresses[0], backoff=backoff),
    ):
        await enough.wait()
    # Those that are let go, the last one, and a few whose abort is on its way.
    assert MOST_DRAINING < most <= MOST_DRAINING + 6


# Serving


async def test_streams_of_the_peer_are_served_on_every_session(no_tasks_left: None) -> None:
    arrived: asyncio.Queue[Session] = asyncio.Queue()

    async def keep(session: Session) -> None:
        arrived.put_nowait(session)
        await session.wait_closed()

    async with (
        muxado.serve(keep, HOST, 0) as server,
        Dialer(*server.addresses[0], backoff=QUICK) as agent,
        running(agent.serve(echo)) as serving,
    ):
        first = await arrived.get()
        async with first.open() as old:
            await old.write(b"old")
            assert await old.readexactly(3) == b"old"
            first.go_away()
            second = await arrived.get()
            async with second.open() as new:
                for _ in range(3):
                    for each in (old, new):
                        await each.write(b"both")
                        assert await each.readexactly(4) == b"both"
        await first.wait_closed()
        second.abort()  # an end of another kind ends nothing either
        third = await arrived.get()
        async with third.open() as stream:
            assert await ask(stream) == b"hello"
        agent.close()
        await serving


async def test_cancelled_serving_cancels_the_handlers_and_can_begin_anew(
    no_tasks_left: None,
) -> None:
    began = asyncio.Event()

    async def hang(stream: Stream) -> None:
        began.set()
        await stream.read()

    arrived: asyncio.Queue[Session] = asyncio.Queue()

    async def keep(session: Session) -> None:
        arrived.put_nowait(session)
        await session.wait_closed()

    async with muxado.serve(keep, HOST, 0) as server, Dialer(*server.addresses[0]) as agent:
        async with running(agent.serve(hang)) as serving:
            session = await arrived.get()
            stream = session.open(eager=True)
            await began.wait()
            await cancel(serving)
        assert await stream.wait_reset() == ErrorCode.STREAM_CANCELLED
        async with running(agent.serve(echo)), session.open() as stream:
            assert await ask(stream) == b"hello"


async def test_serve_says_when_the_streams_are_taken_otherwise(no_tasks_left: None) -> None:
    async with (
        muxado.serve_streams(echo, HOST, 0) as server,
        Dialer(*server.addresses[0]) as dialer,
    ):
        (await dialer.session()).on_stream(lambda stream: None)
        with pytest.raises(muxado.UsageError, match="on_stream"):
            await dialer.serve(echo)
        with pytest.raises(muxado.UsageError, match="must be a function"):
            await dialer.serve(None)  # type: ignore[arg-type]


# Iterating


async def test_iteration_gives_each_session_as_it_comes_up(no_tasks_left: None) -> None:
    async with two_servers() as (first, second):
        addresses = [first.addresses[0], second.addresses[0]]
        async with Dialer(addresses=addresses, backoff=QUICK) as dialer:
            seen = []
            async for session in dialer:
                seen.append(session.remote_address)
                if len(seen) == 4:
                    dialer.close()
                elif len(seen) % 2:
                    dialer.renew()
                else:
                    session.abort()
            assert seen == addresses * 2
        assert [session async for session in dialer] == []


# call()


async def test_a_call_is_repeated_when_its_stream_is_refused(no_tasks_left: None) -> None:
    async def slow_echo(stream: Stream) -> None:
        data = await stream.read(100)
        await asyncio.sleep(0.005)
        await stream.write(data)

    busy = Config(max_incoming_streams=5)
    async with (
        muxado.serve_streams(slow_echo, HOST, 0, config=busy) as server,
        Dialer(*server.addresses[0], backoff=QUICK) as dialer,
    ):
        replies = await asyncio.gather(*[dialer.call(ask) for _ in range(50)])
        assert replies == [b"hello"] * 50
        (session,) = server.sessions
        assert session.stats().refusals > 0


async def test_a_call_that_the_peer_may_have_seen_is_not_repeated(no_tasks_left: None) -> None:
    came = 0

    async def reset(stream: Stream) -> None:
        nonlocal came
        came += 1
        await stream.read(1)
        stream.reset(ErrorCode.INTERNAL_ERROR if came == 1 else ErrorCode.STREAM_REFUSED)

    async def sent(stream: Stream) -> bytes:
        await stream.write(b"xx")
        return await stream.read(1)

    async with (
        muxado.serve_streams(reset, HOST, 0) as server,
        Dialer(*server.addresses[0], backoff=QUICK) as dialer,
    ):
        with pytest.raises(muxado.StreamReset) as caught:
            await dialer.call(sent)
        assert caught.value.code == ErrorCode.INTERNAL_ERROR
        assert came == 1


async def test_a_call_on_a_session_that_is_lost_is_not_repeated(no_tasks_left: None) -> None:
    calls = 0
    with killable() as server:
        async with Dialer(*server.address, backoff=NEVER) as dialer:

            async def call(stream: Stream) -> None:
                nonlocal calls
                calls += 1
                await stream.write(b"x")
                await stream.read(1)
                server.kill()
                await stream.read(1)

            with pytest.raises(muxado.SessionError):
                await dialer.call(call)
        assert calls == 1


async def test_another_streams_refusal_repeats_nothing(no_tasks_left: None) -> None:
    calls = 0
    async with (
        muxado.serve_streams(echo, HOST, 0) as server,
        Dialer(*server.addresses[0], backoff=QUICK) as dialer,
    ):

        async def call(stream: Stream) -> None:
            nonlocal calls
            calls += 1
            await stream.write(b"x")
            assert await stream.read(1) == b"x"
            raise muxado.StreamRefused("another stream's", code=5, by_peer=True)

        with pytest.raises(muxado.StreamRefused, match="another"):
            await dialer.call(call)
        assert calls == 1


async def test_a_call_closes_its_stream_or_resets_it(no_tasks_left: None) -> None:
    async with (
        muxado.serve_streams(echo, HOST, 0) as server,
        Dialer(*server.addresses[0]) as dialer,
    ):
        streams = []

        async def call(stream: Stream) -> None:
            streams.append(stream)
            await stream.write(b"x")
            if len(streams) == 2:
                raise LookupError

        await dialer.call(call)
        with pytest.raises(LookupError):
            await dialer.call(call)
        assert streams[0].is_closing()
        assert await streams[1].wait_reset() == ErrorCode.INTERNAL_ERROR


# 500 at once


def test_500_dialers_come_back_at_different_times() -> None:
    asyncio.run(come_back())  # with a limit of its own: the pauses alone take 3 seconds


async def come_back() -> None:
    planned: list[float] = []
    left = 500
    done = asyncio.Event()

    class Watch:
        tries = 0

        def __call__(self, state: DialerState) -> None:
            nonlocal left
            if state != "waiting":
                return
            assert state.next_try is not None
            self.tries += 1
            if self.tries >= 6:
                planned.append(state.next_try)
            if self.tries == 6:
                left -= 1
                if not left:
                    done.set()

    with killable() as server:
        dialers = [Dialer(*server.address, on_change=Watch()) for _ in range(500)]
        async with asyncio.timeout(patience(60)), asyncio.TaskGroup() as group:

            async def stay(dialer: Dialer) -> None:
                async with dialer:
                    await done.wait()

            for dialer in dialers:
                group.create_task(stay(dialer))
            await asyncio.sleep(0)  # all of them are begun
            for dialer in dialers:
                await dialer.session()
            server.kill()
    planned.sort()
    most = max(bisect_left(planned, at + 0.1) - number for number, at in enumerate(planned))
    assert most <= 50


# The end


async def test_leaving_the_block_ends_a_dial_and_a_pause(no_tasks_left: None, tls: Tls) -> None:
    with silent() as address:
        changes = Changes()
        async with Dialer(*address, ssl=tls.client, on_change=changes):
            await asyncio.sleep(0)
    with closed() as sock:
        async with Dialer(*sock.getsockname(), backoff=NEVER, on_change=changes):
            await changes.reach("waiting")
    assert changes.states[-1] == "closed"


async def test_a_shutdown_lets_handlers_come_to_their_end(no_tasks_left: None) -> None:
    go_on = asyncio.Event()
    arrived: asyncio.Queue[Session] = asyncio.Queue()

    async def keep(session: Session) -> None:
        arrived.put_nowait(session)
        await session.wait_closed()

    async def work(stream: Stream) -> None:
        await stream.read(1)
        await go_on.wait()
        await stream.write(b"done")

    async with muxado.serve(keep, HOST, 0) as server, Dialer(*server.addresses[0]) as agent:
        async with running(agent.serve(work)) as serving:
            session = await arrived.get()
            async with session.open() as stream:
                await stream.write(b"x")
                await session.ping()  # the request has arrived
                await agent.session()
                async with running(agent.shutdown()) as ending:
                    while session.peer_goaway is None:  # noqa: ASYNC110
                        await asyncio.sleep(0)
                    with pytest.raises(muxado.SessionClosed):
                        await agent.open()
                    with pytest.raises(muxado.PeerGone):
                        session.open()
                    assert not ending.done()
                    go_on.set()
                    assert await stream.read() == b"done"
                    stream.close()
                    await ending
            await serving
        assert (await session.wait_closed()).clean
        assert arrived.empty()


async def test_streams_that_came_before_a_shutdown_are_served(no_tasks_left: None) -> None:
    arrived: asyncio.Queue[Session] = asyncio.Queue()

    async def keep(session: Session) -> None:
        arrived.put_nowait(session)
        await session.wait_closed()

    async def work(stream: Stream) -> None:
        await stream.write(b"done")

    async with muxado.serve(keep, HOST, 0) as server, Dialer(*server.addresses[0]) as agent:
        await agent.session()
        session = await arrived.get()
        async with session.open(eager=True) as stream:
            await session.ping()  # the request has arrived
            async with running(agent.shutdown()) as ending:
                await asyncio.sleep(0)
                assert agent.state == "closed"
                async with running(agent.serve(work)) as serving:
                    assert await stream.read() == b"done"
                    stream.close()
                    await ending
                    await serving
        assert (await session.wait_closed()).clean


async def test_a_shutdown_does_not_wait_longer_than_it_was_told(no_tasks_left: None) -> None:
    async with (
        muxado.serve_streams(echo, HOST, 0) as server,
        Dialer(*server.addresses[0]) as dialer,
        await dialer.open() as stream,
    ):
        await stream.write(b"x")
        await dialer.shutdown(0.01)
        assert stream.session.close_reason is not None
        assert "1 stream left" in stream.session.close_reason.message


async def test_a_block_that_raises_aborts_the_sessions(no_tasks_left: None) -> None:
    async with two_servers() as (first, _):
        sessions = []

        async def use() -> None:
            async with Dialer(*first.addresses[0]) as dialer:
                sessions.append(await dialer.session())
                raise LookupError

        with pytest.raises(LookupError):
            await use()
        reason = sessions[0].close_reason
        assert reason is not None
        assert (reason.code, reason.by_peer) == (ErrorCode.INTERNAL_ERROR, False)


async def test_a_cancelled_block_ends_within_the_close_timeout(no_tasks_left: None) -> None:
    entered = asyncio.Event()

    async def stay(address: Any) -> None:
        async with Dialer(*address) as dialer:
            await dialer.session()
            entered.set()
            await asyncio.Event().wait()

    async with (
        muxado.serve_streams(echo, HOST, 0) as server,
        running(stay(server.addresses[0])) as staying,
    ):
        await entered.wait()
        (session,) = server.sessions
        await cancel(staying)
        assert (await session.wait_closed()).code == ErrorCode.STREAM_CANCELLED


async def test_closing_ends_every_call(no_tasks_left: None) -> None:
    with closed() as sock:
        async with Dialer(*sock.getsockname(), backoff=NEVER) as dialer:
            async with (
                running(dialer.open()) as opening,
                running(dialer.serve(echo)) as serving,
                running(anext(aiter(dialer))) as iterating,
            ):
                await asyncio.sleep(0)
                dialer.close()
                dialer.close()
                with pytest.raises(muxado.SessionClosed, match="the dialer is closed"):
                    await opening
                await serving
                with pytest.raises(StopAsyncIteration):
                    await iterating
            await dialer.wait_closed()
        dialer.renew()
        assert dialer.state == "closed"


async def test_closing_ends_the_pause_of_a_refused_call(no_tasks_left: None) -> None:
    refused = asyncio.Event()

    async def call(stream: Stream) -> None:
        await stream.write(b"x")
        try:
            await stream.read(1)
        finally:
            refused.set()

    full = Config(max_incoming_streams=0)
    async with (
        muxado.serve_streams(echo, HOST, 0, config=full) as server,
        Dialer(*server.addresses[0], backoff=NEVER) as dialer,
        running(dialer.call(call)) as calling,
    ):
        await refused.wait()
        dialer.close()
        with pytest.raises(muxado.SessionClosed):
            await calling


async def test_a_cancelled_call_changes_nothing(no_tasks_left: None) -> None:
    with closed() as sock:
        changes = Changes()
        async with Dialer(*sock.getsockname(), backoff=NEVER, on_change=changes) as dialer:
            await changes.reach("waiting")
            for call in (dialer.session(), dialer.open(), dialer.call(ask), dialer.serve(echo)):
                async with running(call) as calling:
                    await asyncio.sleep(0)
                    await cancel(calling)
            server = await muxado.serve_streams(echo, sock=sock)
            async with server:
                dialer.renew()
                assert await dialer.call(ask) == b"hello"


async def test_a_dial_that_cannot_be_cancelled_is_left(
    no_tasks_left: None, caplog: pytest.LogCaptureFixture
) -> None:
    go_on = asyncio.Event()
    config = Config(close_timeout=0.01)

    async def dial() -> Session:
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                continue
        raise OSError("at last")

    dialer = Dialer(dial=dial)
    dialer._close_timeout = config.close_timeout
    async with dialer:
        await asyncio.sleep(0)
    assert "go on although they were cancelled" in caplog.text
    go_on.set()
    assert dialer._runner is not None
    await asyncio.wait([dialer._runner])


@needs_fork
async def test_a_forked_child_leaves_the_dialer_to_its_parent(no_tasks_left: None) -> None:
    async with (
        muxado.serve_streams(echo, HOST, 0) as server,
        Dialer(*server.addresses[0]) as dialer,
    ):
        await dialer.session()

        def child() -> None:
            assert dialer.state == "failed"
            with pytest.raises(muxado.UsageError, match="parent"):
                dialer.open().send(None)

        with living_child(child):
            assert await dialer.call(ask) == b"hello"
        assert dialer.state == "connected"


# Telling, and wrong use


async def test_a_callback_may_use_the_dialer_and_may_fail(
    no_tasks_left: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "muxado.dialer")

    def on_change(state: DialerState) -> None:
        if state == "waiting":
            dialer.close()
        raise LookupError

    with closed() as sock:
        async with Dialer(*sock.getsockname(), backoff=NEVER, on_change=on_change) as dialer:
            await dialer.wait_closed()
    assert dialer.state == "closed"
    assert "the on_change callback of" in caplog.text
    assert "the next try is in" in caplog.text


async def test_each_failed_try_and_the_end_of_tries_are_logged(
    no_tasks_left: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "muxado.dialer")
    with closed() as sock:
        changes = Changes()
        async with Dialer(*sock.getsockname(), backoff=QUICK, on_change=changes):
            await changes.reach("waiting", "waiting", "waiting")
        waits = changes.states.count(DialerState("waiting"))
        async with Dialer(*sock.getsockname(), final=[ConnectionRefusedError]) as dialer:
            with pytest.raises(ConnectionRefusedError):
                await dialer.open()
    told = [(record.levelname, getattr(record, "event", "")) for record in caplog.records]
    assert told == [("INFO", "dialer_waits")] * waits + [("WARNING", "dialer_failed")]
    assert all("Refused" in getattr(record, "error", "") for record in caplog.records)


async def test_its_repr_says_where_and_what(no_tasks_left: None) -> None:
    assert repr(Dialer("hub.example", 4000)) == "<Dialer hub.example:4000 connecting>"
    assert repr(Dialer(addresses=[("a", 1), ("b", 2)])) == "<Dialer a:1,b:2 connecting>"
    assert repr(Dialer(path="/run/hub")) == "<Dialer '/run/hub' connecting>"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({}, "either host and port"),
        ({"host": "a"}, "host= needs port="),
        ({"port": 1}, "port= needs host="),
        ({"host": "a", "port": 1, "path": "/b"}, "either host and port"),
        ({"host": "a", "port": 1, "dial": print}, "either host and port"),
        ({"addresses": []}, "must be a list"),
        ({"addresses": "a:1"}, "must be a list"),
        ({"addresses": ["a:1"]}, "pairs of host and port"),
        ({"addresses": [("a", 0)]}, "port="),
        ({"dial": "function"}, "dial= must be a function"),
        ({"dial": print, "ssl": True}, "ssl= is for connect()"),
        ({"dial": print, "family": 2}, "family= is for connect()"),
        ({"host": "a", "port": 1, "server_hostname": "b"}, "server_hostname= is for TLS"),
        ({"host": "a", "port": 1, "timeout": 0}, "timeout="),
        ({"dial": print, "timeout": -1}, "timeout="),
        ({"host": "a", "port": 1, "on_change": 3}, "on_change="),
        ({"host": "a", "port": 1, "backoff": 3}, "backoff="),
        ({"host": "a", "port": 1, "final": 403}, "final="),
        ({"host": "a", "port": 1, "config": {}}, "config="),
        ({"host": "a", "port": 1, "name": 3}, "name must be a string"),
    ],
)
def test_what_cannot_be_dialled_is_refused_at_once(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(muxado.UsageError) as caught:
        Dialer(**wrong)
    assert told in str(caught.value)
    with pytest.raises(TypeError, match="unknown"):
        Dialer("a", 1, unknown=3)


async def test_it_is_used_inside_of_its_block_which_is_entered_once(no_tasks_left: None) -> None:
    with closed() as sock:
        dialer = Dialer(*sock.getsockname())
        with pytest.raises(muxado.UsageError, match="inside of its block"):
            await dialer.open()
        async with dialer:
            with pytest.raises(muxado.UsageError, match="entered once"):
                await dialer.__aenter__()


@pytest.mark.parametrize("given", [None, "session"])
async def test_a_dial_function_that_gives_no_session_is_final(
    no_tasks_left: None, given: object
) -> None:
    async def dial() -> object:
        return given

    for function in (dial, lambda: given):
        async with Dialer(dial=function) as dialer:  # type: ignore[arg-type]
            with pytest.raises(muxado.UsageError, match="dial= must"):
                await dialer.open()


def test_killable_is_killed() -> None:
    server = Killable(0)
    server.kill()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.address)
