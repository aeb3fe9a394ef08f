"""`Dialer` for trio: it stays connected through all that can happen to its servers."""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

import muxado
from muxado import Backoff, Config, DialerState, ErrorCode
from muxado.trio import Dialer, Server, Session, Stream, connect, serve, serve_streams
from tests import inside
from tests.certificates import Tls
from tests.forking import living_child, needs_fork
from tests.killable import killable

from .test_trio_session import echo

HOST = "127.0.0.1"
QUICK = Backoff(first=0.01, most=0.05)
NEVER = Backoff(first=1000, most=1000)  # the next try has to be asked for, most likely


async def ask(stream: Stream) -> bytes:
    await stream.send_all(b"hello")
    await stream.send_eof()
    return await stream.readexactly(5)


async def bounce(stream: Stream) -> None:
    """See that a stream carries bytes both ways."""
    await stream.send_all(b"both")
    assert await stream.readexactly(4) == b"both"


@asynccontextmanager
async def serving(
    handler: Callable[[Stream], Awaitable[None]] = echo, **kwds: Any
) -> AsyncIterator[Server]:
    """Run a server for the length of the block."""
    place: dict[str, Any] = {} if "sock" in kwds else {"host": HOST, "port": 0}
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_streams, handler, **place, **kwds))
        yield server
        server.close()


@asynccontextmanager
async def keeping() -> AsyncIterator[tuple[Server, trio.MemoryReceiveChannel[Session]]]:
    """Run a server that gives its sessions to the test."""
    send, receive = trio.open_memory_channel[Session](100)

    async def keep(session: Session) -> None:
        await send.send(session)
        await session.wait_closed()

    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(serve, keep, HOST, 0)
        yield server, receive
        server.close()


@contextmanager
def closed() -> Iterator[trio.socket.SocketType]:
    """Give a socket that refuses connections until it listens."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        yield trio.socket.from_stdlib_socket(sock)


class Changes:
    """What `on_change` has told, and a way to wait for more of it."""

    def __init__(self) -> None:
        self.states: list[DialerState] = []
        self._told = trio.Event()

    def __call__(self, state: DialerState) -> None:
        self.states.append(state)
        told, self._told = self._told, trio.Event()
        told.set()

    async def reach(self, *states: str) -> None:
        """Wait until it has told these states in this order, with others between them."""
        while True:
            left = list(states)
            for state in self.states:
                if left and state == left[0]:
                    left.pop(0)
            if not left:
                return
            await self._told.wait()


# Outages


async def test_streams_are_opened_on_the_session_that_lives() -> None:
    async with serving() as server:
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


async def test_a_call_waits_through_an_outage() -> None:
    with closed() as sock:
        changes = Changes()
        done = trio.Event()
        replies: list[bytes] = []
        async with (
            Dialer(*sock.getsockname(), backoff=QUICK, on_change=changes) as dialer,
            trio.open_nursery() as nursery,
        ):

            async def call() -> None:
                replies.append(await dialer.call(ask))
                done.set()

            nursery.start_soon(call)
            await changes.reach("waiting", "connecting", "waiting")
            assert isinstance(dialer.last_error, OSError)
            async with serving(sock=sock):
                await done.wait()
    assert (replies, changes.states[-1]) == ([b"hello"], "closed")


async def test_a_server_that_is_killed_and_started_again() -> None:
    with killable() as first:
        changes = Changes()
        async with Dialer(*first.address, backoff=QUICK, on_change=changes) as dialer:
            async with await dialer.open() as stream:
                await bounce(stream)
                first.kill()
                with pytest.raises(trio.BrokenResourceError):
                    await stream.receive_some()
            await changes.reach("connected", "waiting")
            with killable(first.address[1]):
                assert await dialer.call(ask) == b"hello"


async def test_a_server_that_is_started_again_at_another_address() -> None:
    with killable() as first, closed() as sock, killable() as last:
        addresses = [first.address, sock.getsockname(), last.address]
        async with Dialer(addresses=addresses, backoff=QUICK) as dialer:
            assert await dialer.call(ask) == b"hello"
            first.kill()
            while (session := await dialer.session()).remote_address != last.address:
                await session.wait_closed()
            assert await dialer.call(ask) == b"hello"


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_function_can_dial(tls: Tls, kind: str) -> None:
    tries = 0

    class Busy(Exception):
        retry_after = 0.05

    async with serving(ssl=tls.server) as server:

        def plain() -> Any:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise Busy
            return connect(*server.addresses[0], ssl=tls.client)

        async def dial() -> Any:
            return plain()

        began = trio.current_time()
        async with Dialer(dial=dial if kind == "async" else plain, backoff=QUICK) as dialer:
            assert await dialer.call(ask) == b"hello"
            assert trio.current_time() - began >= 0.1
            assert isinstance(dialer.last_error, Busy)
        assert tries == 3


# Denials, and servers that say nothing


@pytest.mark.parametrize("way", ["abort", "go_away"])
async def test_a_denial_raises_from_every_call_that_waits(way: str) -> None:
    denied = (muxado.SessionAborted, muxado.PeerGone)
    async with (
        keeping() as (server, arrived),
        Dialer(*server.addresses[0], backoff=QUICK) as dialer,
    ):
        sessions = aiter(dialer)
        await anext(sessions)
        codes = []

        async def wait(call: Callable[[], Awaitable[object]]) -> None:
            with pytest.raises(denied) as caught:
                await call()
            codes.append(caught.value.code)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, sessions.__anext__)
            nursery.start_soon(wait, partial(dialer.serve, echo))
            session = await arrived.receive()
            if way == "abort":
                session.abort(403)
            else:
                session.go_away(403, b"who are you?")
        for call in (dialer.session, dialer.open, partial(dialer.call, ask)):
            await wait(call)
        assert codes == [403] * 5
        assert dialer.state == "failed"
        with pytest.raises(trio.WouldBlock):
            arrived.receive_nowait()


async def test_a_server_that_accepts_and_says_nothing_costs_a_timeout(tls: Tls) -> None:
    with socket.create_server((HOST, 0)) as silent:
        async with (
            serving(ssl=tls.server) as server,
            Dialer(
                addresses=[silent.getsockname(), server.addresses[0]],
                ssl=tls.client,
                timeout=0.1,
                backoff=QUICK,
            ) as dialer,
        ):
            with trio.move_on_after(0.01) as scope:
                await dialer.open()
            assert scope.cancelled_caught
            session = await dialer.session()
            assert session.remote_address == server.addresses[0]
            assert isinstance(dialer.last_error, TimeoutError)


async def test_a_session_whose_peer_says_nothing_is_followed_by_the_next() -> None:
    config = Config(ping_interval=0.05, ping_timeout=0.05)
    with socket.create_server((HOST, 0)) as silent:
        async with (
            serving() as server,
            Dialer(
                addresses=[silent.getsockname(), server.addresses[0]],
                config=config,
                backoff=QUICK,
            ) as dialer,
        ):
            first = await dialer.session()
            assert first.remote_address == silent.getsockname()
            await first.wait_closed()
            assert (await dialer.session()).remote_address == server.addresses[0]
            assert isinstance(dialer.last_error, muxado.PeerTimeout)


async def test_a_function_that_dials_for_too_long_is_cancelled() -> None:
    changes = Changes()
    cancelled = []

    async def dial() -> Any:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(True)

    async with Dialer(dial=dial, timeout=0.05, backoff=NEVER, on_change=changes) as dialer:
        await changes.reach("waiting")
        assert cancelled
        assert isinstance(dialer.last_error, TimeoutError)
        assert dialer.last_error.errno == errno.ETIMEDOUT


# Overlap


async def test_no_call_fails_over_a_drain_under_load() -> None:
    async with (
        serving() as first,
        serving() as second,
        Dialer(addresses=[first.addresses[0], second.addresses[0]], backoff=QUICK) as dialer,
    ):
        old = await dialer.session()
        done = 0
        some = trio.Event()
        drained = False

        async def work() -> None:
            nonlocal done
            after = 0
            while after < 20:
                assert await dialer.call(ask) == b"hello"
                done += 1
                after += drained
                if done == 200:
                    some.set()

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(work)
            await some.wait()
            await first.shutdown()
            drained = True
        assert (await old.wait_closed()).clean
        assert (await dialer.session()).remote_address == second.addresses[0]


@pytest.mark.parametrize("way", ["GOAWAY", "renew"])
async def test_both_sessions_carry_bytes_at_once(way: str) -> None:
    async with (
        serving() as first,
        serving() as second,
        Dialer(addresses=[first.addresses[0], second.addresses[0]], backoff=QUICK) as dialer,
    ):
        sessions = aiter(dialer)
        old = await anext(sessions)
        async with await dialer.open() as stream:
            await bounce(stream)
            if way == "GOAWAY":
                first.sessions[0].go_away()
            else:
                dialer.renew()
            assert (await anext(sessions)).remote_address == second.addresses[0]
            async with await dialer.open() as other:
                assert (stream.session, other.session is old) == (old, False)
                for _ in range(10):  # in turn: neither has ended while the other one works
                    await bounce(stream)
                    await bounce(other)
                await stream.aclose()  # the last stream of its session
                assert (await old.wait_closed()).clean
                await bounce(other)


async def test_a_session_whose_ids_are_used_up_is_followed_by_the_next() -> None:
    async with (
        serving() as first,
        serving() as second,
        Dialer(addresses=[first.addresses[0], second.addresses[0]], backoff=QUICK) as dialer,
    ):
        old = await dialer.session()
        inside.set_next_id(old._core, 2**31 + 1)
        async with await dialer.open() as stream:
            assert stream.session is not old
            assert await ask(stream) == b"hello"
        assert (await old.wait_closed()).clean


# Serving


async def test_streams_of_the_peer_are_served_on_every_session() -> None:
    async with (
        keeping() as (server, arrived),
        Dialer(*server.addresses[0], backoff=QUICK) as agent,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(agent.serve, echo)
        first = await arrived.receive()
        async with first.open() as old:
            await bounce(old)
            first.go_away()
            second = await arrived.receive()
            async with second.open() as new:
                for _ in range(3):
                    await bounce(old)
                    await bounce(new)
        await first.wait_closed()
        second.abort()  # an end of another kind ends nothing either
        third = await arrived.receive()
        async with third.open() as stream:
            assert await ask(stream) == b"hello"
        agent.close()


async def test_cancelled_serving_cancels_the_handlers_and_can_begin_anew() -> None:
    began = trio.Event()

    async def hang(stream: Stream) -> None:
        began.set()
        await trio.sleep_forever()

    async with keeping() as (server, arrived), Dialer(*server.addresses[0]) as agent:
        session = await arrived.receive()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent.serve, hang)
            stream = session.open(eager=True)
            await began.wait()
            nursery.cancel_scope.cancel()
        assert await stream.wait_reset() == ErrorCode.STREAM_CANCELLED
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent.serve, echo)
            async with session.open() as stream:
                assert await ask(stream) == b"hello"
            nursery.cancel_scope.cancel()


async def test_serve_says_what_is_wrong() -> None:
    async with serving() as server, Dialer(*server.addresses[0]) as dialer:
        (await dialer.session()).on_stream(lambda stream: None)
        with pytest.raises(muxado.UsageError, match="on_stream"):
            await dialer.serve(echo)
        with pytest.raises(muxado.UsageError, match="must be a function"):
            await dialer.serve(None)  # type: ignore[arg-type]


# Iterating


async def test_iteration_gives_each_session_as_it_comes_up() -> None:
    async with serving() as first, serving() as second:
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


async def test_a_call_is_repeated_when_its_stream_is_refused() -> None:
    async def slow_echo(stream: Stream) -> None:
        data = await stream.receive_some()
        await trio.sleep(0.005)
        await stream.send_all(data)

    busy = Config(max_incoming_streams=5)
    async with (
        serving(slow_echo, config=busy) as server,
        Dialer(*server.addresses[0], backoff=QUICK) as dialer,
    ):
        replies = []

        async def call() -> None:
            replies.append(await dialer.call(ask))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(call)
        assert replies == [b"hello"] * 50
        (session,) = server.sessions
        assert session.stats().refusals > 0


async def test_a_call_that_the_peer_may_have_seen_is_not_repeated() -> None:
    came = []

    async def reset(stream: Stream) -> None:
        came.append(await stream.receive_some(1))
        stream.reset(ErrorCode.INTERNAL_ERROR)

    async with serving(reset) as server, Dialer(*server.addresses[0]) as dialer:
        with pytest.raises(trio.BrokenResourceError) as caught:
            await dialer.call(ask)
        assert isinstance(caught.value.__cause__, muxado.StreamReset)
        assert came == [b"h"]


async def test_another_streams_refusal_repeats_nothing() -> None:
    calls = []

    async def call(stream: Stream) -> None:
        calls.append(stream)
        await bounce(stream)
        raise muxado.StreamRefused("another stream's", code=5, by_peer=True)

    async with serving() as server, Dialer(*server.addresses[0]) as dialer:
        with pytest.raises(muxado.StreamRefused, match="another"):
            await dialer.call(call)
        assert len(calls) == 1


# The end


async def test_leaving_the_block_ends_a_dial_and_a_pause(tls: Tls) -> None:
    changes = Changes()
    with socket.create_server((HOST, 0)) as silent:
        async with Dialer(*silent.getsockname(), ssl=tls.client):
            await trio.testing.wait_all_tasks_blocked()
    with closed() as sock:
        async with Dialer(*sock.getsockname(), backoff=NEVER, on_change=changes):
            await changes.reach("waiting")
    assert changes.states[-1] == "closed"


async def test_a_shutdown_lets_handlers_come_to_their_end() -> None:
    go_on = trio.Event()

    async def work(stream: Stream) -> None:
        await stream.receive_some(1)
        await go_on.wait()
        await stream.send_all(b"done")

    async with (
        keeping() as (server, arrived),
        Dialer(*server.addresses[0]) as agent,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(agent.serve, work)
        session = await arrived.receive()
        async with session.open() as stream:
            await stream.send_all(b"x")
            told = trio.Event()
            session.on_draining(told.set)
            await session.ping()  # the request has arrived
            await agent.session()
            nursery.start_soon(agent.shutdown)
            await told.wait()
            with pytest.raises(trio.ClosedResourceError):
                await agent.open()
            go_on.set()
            assert await stream.readexactly(4) == b"done"
        assert (await session.wait_closed()).clean


async def test_a_shutdown_does_not_wait_longer_than_it_was_told() -> None:
    async with (
        serving() as server,
        Dialer(*server.addresses[0]) as dialer,
        await dialer.open() as stream,
    ):
        await bounce(stream)
        await dialer.shutdown(0.01)
        assert stream.session.close_reason is not None
        assert "1 stream left" in stream.session.close_reason.message


async def test_a_block_that_raises_aborts_the_sessions() -> None:
    sessions = []

    async def use(server: Server) -> None:
        async with Dialer(*server.addresses[0]) as dialer:
            sessions.append(await dialer.session())
            raise LookupError

    async with serving() as server:
        with pytest.raises(LookupError):
            await use(server)
    reason = sessions[0].close_reason
    assert reason is not None
    assert (reason.code, reason.by_peer) == (ErrorCode.INTERNAL_ERROR, False)


async def test_a_cancelled_block_aborts_the_sessions() -> None:
    async with keeping() as (server, arrived):
        with trio.CancelScope() as scope:
            async with Dialer(*server.addresses[0]) as dialer:
                await dialer.session()
                session = await arrived.receive()
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert (await session.wait_closed()).code == ErrorCode.STREAM_CANCELLED


async def test_closing_ends_every_call() -> None:
    with closed() as sock:
        changes = Changes()
        async with Dialer(*sock.getsockname(), backoff=NEVER, on_change=changes) as dialer:
            await changes.reach("waiting")

            async def wait(call: Callable[[], Awaitable[object]], *errors: Any) -> None:
                with pytest.raises(errors) if errors else nullcontext():
                    await call()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait, dialer.open, trio.ClosedResourceError)
                nursery.start_soon(wait, partial(dialer.call, ask), trio.ClosedResourceError)
                nursery.start_soon(wait, aiter(dialer).__anext__, StopAsyncIteration)
                nursery.start_soon(wait, partial(dialer.serve, echo))
                nursery.start_soon(wait, dialer.wait_closed)
                await trio.testing.wait_all_tasks_blocked()
                dialer.close()
                dialer.close()
            with pytest.raises(trio.ClosedResourceError, match="the dialer is closed") as caught:
                await dialer.session()
            assert isinstance(caught.value.__cause__, muxado.SessionClosed)
            dialer.renew()
            assert dialer.state == "closed"


async def test_closing_ends_the_pause_of_a_refused_call() -> None:
    refused = trio.Event()

    async def call(stream: Stream) -> None:
        await stream.send_all(b"x")
        try:
            await stream.receive_some(1)
        finally:
            refused.set()

    async def wait(dialer: Dialer) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await dialer.call(call)

    full = Config(max_incoming_streams=0)
    async with (
        serving(config=full) as server,
        Dialer(*server.addresses[0], backoff=NEVER) as dialer,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(wait, dialer)
        await refused.wait()
        dialer.close()


def test_ctrl_c_ends_the_program() -> None:
    async def main() -> None:
        async with Dialer(*sock.getsockname(), backoff=NEVER, on_change=changes) as dialer:
            await changes.reach("waiting")
            signal.raise_signal(signal.SIGINT)
            await dialer.open()

    changes = Changes()
    with closed() as sock, pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert changes.states[-1] == "closed"


async def test_what_must_end_the_program_comes_out_of_the_block() -> None:
    class Exit(BaseException):
        pass

    async def dial() -> Any:
        raise Exit

    async def use() -> None:
        async with Dialer(dial=dial):
            await trio.sleep_forever()

    with pytest.raises(Exit):
        await use()


@needs_fork
async def test_a_forked_child_leaves_the_dialer_to_its_parent() -> None:
    async with serving() as server, Dialer(*server.addresses[0]) as dialer:
        await dialer.session()

        def child() -> None:
            assert dialer.state == "failed"
            with pytest.raises(muxado.UsageError, match="parent"):
                dialer._check()  # as every call does

        with living_child(child):
            assert await dialer.call(ask) == b"hello"
        assert dialer.state == "connected"


# Telling, and wrong use


async def test_a_callback_may_use_the_dialer_and_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    def on_change(state: DialerState) -> None:
        if state == "waiting":
            dialer.close()
        raise LookupError

    with closed() as sock:
        async with Dialer(*sock.getsockname(), backoff=NEVER, on_change=on_change) as dialer:
            await dialer.wait_closed()
    assert dialer.state == "closed"
    assert "the on_change callback of" in caplog.text


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({}, "either host and port"),
        ({"addresses": [("a", 0)]}, "port="),
        ({"dial": print, "ssl": True}, "ssl= is for connect()"),
        ({"host": "a", "port": 1, "timeout": 0}, "timeout="),
        ({"host": "a", "port": 1, "name": 3}, "name must be a string"),
        ({"host": "a", "port": 1, "final": 403}, "final="),
    ],
)
def test_what_cannot_be_dialled_is_refused_at_once(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(muxado.UsageError) as caught:
        Dialer(**wrong)
    assert told in str(caught.value)


async def test_it_is_used_inside_of_its_block_which_is_entered_once() -> None:
    with closed() as sock:
        dialer = Dialer(*sock.getsockname())
        with pytest.raises(muxado.UsageError, match="inside of its block"):
            await dialer.open()
        async with dialer:
            with pytest.raises(muxado.UsageError, match="entered once"):
                await dialer.__aenter__()


@pytest.mark.parametrize("given", [None, nullcontext()])
async def test_a_dial_function_that_gives_no_session_is_final(given: Any) -> None:
    async with Dialer(dial=lambda: given) as dialer:
        with pytest.raises(muxado.UsageError, match="dial= must give"):
            await dialer.open()
