"""What sessions and streams promise, over every transport and event loop."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random

import pytest

import muxado
from muxado import ErrorCode, Session, Stream

from ..fixtures import NewPair
from ..helpers import cancel, echo, exchange, opened, running
from ..transports import Ends

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


# Data


async def test_streams_of_either_side_carry_bytes_both_ways(session_pair: Ends) -> None:
    client, server = session_pair
    for near, far in ((client, server), (server, client)):
        async with opened(near, far) as (stream, other):
            assert stream.id == other.id
            await stream.write(b"question")
            assert await other.read(100) == b"question"
            await other.write(b"answer")
            assert await stream.read(100) == b"answer"


async def test_a_reply_can_follow_the_end_of_the_request(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (stream, other):
        await stream.write(b"all of it")
        stream.write_eof()
        assert await other.read() == b"all of it"
        assert other.at_eof()
        await other.write(b"and back")
        other.write_eof()
        assert await stream.read() == b"and back"


async def test_big_transfers_go_both_ways_at_once(session_pair: Ends) -> None:
    client, server = session_pair
    random.seed(1)
    there, back = random.randbytes(8 * MIB), random.randbytes(8 * MIB)

    async def send(stream: Stream, data: bytes) -> None:
        for start in range(0, len(data), 100_000):
            await stream.write(data[start : start + 100_000])
        stream.write_eof()

    async def digest(stream: Stream) -> bytes:
        checksum = hashlib.sha256()
        while data := await stream.read(100_000):
            checksum.update(data)
        return checksum.digest()

    async with opened(client, server) as (stream, other), asyncio.TaskGroup() as group:
        group.create_task(send(stream, there))
        group.create_task(send(other, back))
        arrived_there = group.create_task(digest(other))
        arrived_back = group.create_task(digest(stream))
    assert arrived_there.result() == hashlib.sha256(there).digest()
    assert arrived_back.result() == hashlib.sha256(back).digest()


async def test_many_streams_at_once(session_pair: Ends) -> None:
    client, server = session_pair

    async def ask(session: Session, number: int) -> None:
        request = str(number).encode() * 1000
        async with session.open() as stream:
            assert await exchange(stream, request) == request

    async with (
        running(server.serve(echo)),
        running(client.serve(echo)),
        asyncio.TaskGroup() as group,
    ):
        for number in range(100):
            group.create_task(ask(client, number))
            group.create_task(ask(server, number))


async def test_a_stream_is_announced_by_what_is_done_with_it(session_pair: Ends) -> None:
    client, server = session_pair
    async with client.open() as stream:
        await stream.write(b"1")
        async with await server.accept() as other:
            assert await other.read(1) == b"1"
    async with client.open() as stream:
        stream.write_eof()
        async with await server.accept() as other:
            assert await other.read() == b""
    async with (
        client.open() as stream,
        running(stream.read(1)) as reading,
        await server.accept() as other,
    ):
        await other.write(b"2")
        assert await reading == b"2"


async def test_a_stream_that_was_never_announced_ends_in_silence(session_pair: Ends) -> None:
    client, server = session_pair
    await client.ping()
    await server.ping()
    heard = server.stats().frames_received
    client.open().close()
    client.open().reset()
    async with client.open():
        pass
    async with client.open() as stream:
        await stream.write(b"")
    await client.ping()
    assert server.stats().frames_received == heard + 1


# Backpressure

SMALL = {"initial_window": 1000, "max_window": 1000, "write_high_water": 500}


async def test_a_write_waits_for_the_reader(new_pair: NewPair) -> None:
    client, server = await new_pair(**SMALL)
    async with opened(client, server) as (stream, other):
        await stream.write(b"a" * 1500)  # the window's worth goes, the rest is queued
        async with running(stream.write(b"b")) as writing:
            await client.ping()
            assert not writing.done()
            assert await other.readexactly(1000) == b"a" * 1000
            await writing
            assert await other.readexactly(501) == b"a" * 500 + b"b"


async def test_a_cancelled_write_has_queued_nothing(new_pair: NewPair) -> None:
    client, server = await new_pair(**SMALL)
    async with opened(client, server) as (stream, other):
        await stream.write(b"a" * 1500)
        async with running(stream.write(b"b" * 100)) as writing:
            await client.ping()
            await cancel(writing)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await stream.write(b"c" * 100)
        async with running(exchange(stream, b"d")) as finishing:
            assert await other.read() == b"a" * 1500 + b"d"
            other.write_eof()
            assert await finishing == b""


# The ends of a stream


async def test_a_reset_carries_its_code_either_way(session_pair: Ends) -> None:
    client, server = session_pair
    for near, far in ((client, server), (server, client)):
        async with opened(near, far) as (stream, other):
            async with running(other.read()) as reading:
                stream.reset(77)
                with pytest.raises(muxado.StreamReset) as caught:
                    await reading
            assert (caught.value.code, caught.value.by_peer) == (77, True)
            with pytest.raises(muxado.StreamReset) as caught:
                await other.write(b"x")
            assert (caught.value.code, caught.value.by_peer) == (77, True)
            for call in (stream.read(1), stream.write(b"x")):
                with pytest.raises(muxado.StreamReset) as caught:
                    await call
                assert (caught.value.code, caught.value.by_peer) == (77, False)


async def test_a_reset_of_an_accepted_stream_reaches_its_opener(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (stream, other):
        other.reset()
        assert await stream.wait_reset() == ErrorCode.STREAM_CANCELLED
        with pytest.raises(muxado.StreamReset):
            await stream.read(1)


async def test_wait_reset_gives_the_code_to_both_sides(session_pair: Ends) -> None:
    client, server = session_pair
    async with (
        opened(client, server) as (stream, other),
        running(other.wait_reset()) as there,
        running(stream.wait_reset()) as here,
    ):
        await client.ping()
        assert not there.done()
        stream.reset(9999)
        assert await there == 9999
        assert await here == 9999


async def test_wait_reset_gives_none_after_an_orderly_end(session_pair: Ends) -> None:
    client, server = session_pair
    async with (
        opened(client, server) as (stream, other),
        running(stream.wait_reset()) as here,
        running(other.wait_reset()) as there,
    ):
        stream.write_eof()
        assert await other.read() == b""
        other.write_eof()
        assert await stream.read() == b""
        assert await here is None
        assert await there is None


async def test_wait_reset_raises_when_the_session_ends_first(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (stream, other):
        async with running(stream.wait_reset()) as waiting:
            await client.ping()
            server.close()
            with pytest.raises(muxado.SessionClosed):
                await waiting
        with pytest.raises(muxado.SessionClosed):
            await other.wait_reset()


async def test_wait_closed_waits_for_the_fin_and_not_for_the_peers(new_pair: NewPair) -> None:
    client, server = await new_pair(**SMALL)
    async with opened(client, server) as (stream, other):
        await stream.write(b"a" * 2000)
        stream.write_eof()
        async with running(stream.wait_closed()) as waiting:
            await client.ping()
            assert not waiting.done()
            assert await other.readexactly(2000) == b"a" * 2000
            await waiting
        assert not stream.at_eof()
        assert await other.read() == b""


async def test_wait_closed_returns_when_the_stream_fails(new_pair: NewPair) -> None:
    client, server = await new_pair(**SMALL)
    async with opened(client, server) as (stream, other):
        await stream.write(b"a" * 2000)
        stream.write_eof()
        async with running(stream.wait_closed()) as waiting:
            await client.ping()
            other.reset()
            await waiting


async def test_what_was_written_before_close_arrives_whole(session_pair: Ends) -> None:
    client, server = session_pair
    data = random.Random(2).randbytes(MIB)
    stream = client.open()
    await stream.write(data)
    stream.close()
    with pytest.raises(muxado.StreamClosed):
        await stream.write(b"x")
    async with await server.accept() as other:
        arrived = b""
        while piece := await other.read(10_000):
            arrived += piece
    assert arrived == data


async def test_a_writer_to_a_closed_stream_does_not_hang(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (stream, other):
        await stream.write(b"unread")
        assert await other.read(1) == b"u"
        other.close()
        with pytest.raises(muxado.StreamReset) as caught:
            await write_on(stream)
        assert caught.value.code == ErrorCode.STREAM_CLOSED


async def write_on(stream: Stream) -> None:
    while True:
        await stream.write(b"x" * 10_000)


async def test_leaving_a_stream_normally_closes_it(session_pair: Ends) -> None:
    client, server = session_pair
    async with client.open() as stream:
        await stream.write(b"short")
    assert stream.is_closing()
    async with await server.accept() as other:
        assert await other.read() == b"short"


async def test_leaving_a_stream_waits_for_what_the_window_does_not_let_out(
    new_pair: NewPair,
) -> None:
    client, server = await new_pair(**SMALL)

    async def send() -> None:
        async with client.open() as stream:
            await stream.write(b"a" * 2500)

    async with running(send()) as sending, await server.accept() as other:
        await client.ping()
        assert not sending.done()
        assert await other.read() == b"a" * 2500
        await sending


async def test_leaving_a_stream_by_an_exception_resets_it(session_pair: Ends) -> None:
    client, server = session_pair

    async def fail() -> None:
        async with client.open() as stream:
            await stream.readline()
            raise ZeroDivisionError

    async with running(fail()) as failing, await server.accept() as other:
        await other.write(b"now\n")
        with pytest.raises(ZeroDivisionError):
            await failing
        assert await other.wait_reset() == ErrorCode.INTERNAL_ERROR


async def test_leaving_a_stream_by_cancellation_resets_it(session_pair: Ends) -> None:
    client, server = session_pair

    async def hang() -> None:
        async with client.open() as stream:
            await stream.read()

    async with running(hang()) as hanging, await server.accept() as other:
        await cancel(hanging)
        assert await other.wait_reset() == ErrorCode.STREAM_CANCELLED


async def test_cancelled_while_leaving_a_stream_resets_it(new_pair: NewPair) -> None:
    client, server = await new_pair(**SMALL)

    async def send() -> None:
        async with client.open() as stream:
            await stream.write(b"a" * 2500)

    async with running(send()) as sending, await server.accept() as other:
        await client.ping()
        await cancel(sending)
        assert await other.wait_reset() == ErrorCode.STREAM_CANCELLED


async def test_ending_a_stream_again_is_harmless(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (stream, other):
        await stream.write(b"x")
        for _ in range(2):
            stream.write_eof()
        for _ in range(2):
            stream.close()
            await stream.wait_closed()
        stream.write_eof()
        stream.reset()
        stream.reset(8)
        stream.close()
        assert await other.read() == b"x"


# The ends of a session


async def test_go_away_stops_new_streams_of_the_peer_only(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (stream, other):
        server.go_away(3, b"soon gone")
        unheard = client.open(eager=True)
        assert await unheard.wait_reset() in (
            ErrorCode.STREAM_REFUSED,
            ErrorCode.REMOTE_GONE_AWAY,
        )
        with pytest.raises(muxado.StreamRefused):
            await unheard.read()
        await server.ping()
        with pytest.raises(muxado.PeerGone) as caught:
            client.open()
        assert caught.value.reason is not None
        assert (caught.value.reason.code, caught.value.reason.debug) == (3, b"soon gone")
        assert not client.closed
        async with opened(server, client) as (mine, yours):
            await mine.write(b"still allowed")
            assert await yours.read(100) == b"still allowed"
        await stream.write(b"goes on")
        assert await other.read(100) == b"goes on"
        server.go_away()


async def test_shutdown_waits_for_the_streams_there_are(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (stream, other):
        queued = client.open(eager=True)
        await client.ping()
        async with running(server.shutdown()) as ending:
            await server.ping()
            with pytest.raises(muxado.SessionClosed):
                server.open()
            with pytest.raises(muxado.PeerGone):
                client.open()
            async with await server.accept() as accepted:
                assert accepted.id == queued.id
                await accepted.write(b"late, but in time")
            assert await queued.read() == b"late, but in time"
            queued.close()
            await other.write(b"goes on")
            assert await stream.read(100) == b"goes on"
            assert not ending.done()
            stream.close()
            assert await other.read() == b""
            other.close()
            await ending
    await client.wait_closed()
    for session in session_pair:
        assert session.close_reason is not None
        assert session.close_reason.clean


async def test_shutdown_aborts_when_its_time_is_up(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (stream, other):
        await server.shutdown(0.05)
        assert server.closed
        with pytest.raises(muxado.SessionClosed):
            await other.read()
        with pytest.raises(muxado.SessionError):
            await stream.read()


async def test_shutdown_of_a_session_without_streams_is_quick(new_pair: NewPair) -> None:
    client, server = await new_pair(close_timeout=1000)
    other, _ = await new_pair()
    async with running(client.shutdown(None)) as ending:
        # It takes a few round trips, however long those of this machine are.
        rounds = 0
        while not ending.done():
            await other.ping()
            rounds += 1
        await ending
    assert rounds < 50
    await server.wait_closed()
    await client.shutdown()


async def test_close_delivers_what_was_written_to_a_slow_reader(session_pair: Ends) -> None:
    client, server = session_pair
    data = random.Random(3).randbytes(MIB)
    stream = client.open()
    await stream.write(data)
    stream.write_eof()
    client.close()
    async with running(client.wait_closed()) as closing, await server.accept() as other:
        arrived = b""
        while piece := await other.read(10_000):
            arrived += piece
        assert arrived == data
        await closing


async def test_close_without_eof_is_an_error_after_the_data(session_pair: Ends) -> None:
    client, server = session_pair
    stream = client.open()
    await stream.write(b"half a message")
    client.close()
    async with await server.accept() as other:
        assert await other.readexactly(14) == b"half a message"
        with pytest.raises(muxado.SessionClosed):
            await other.read()


async def test_close_ends_the_closer_at_once_and_the_peer_in_order(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (stream, other):
        await other.write(b"never read")
        async with running(stream.readexactly(100)) as reading, running(client.accept()) as wait:
            await client.ping()
            client.close()
            assert client.closed
            with pytest.raises(muxado.SessionClosed):
                await reading
            with pytest.raises(muxado.SessionClosed):
                await wait
        for call in (stream.read(1), stream.write(b"x"), client.accept(), client.ping()):
            with pytest.raises(muxado.SessionClosed):
                await call
        with pytest.raises(muxado.SessionClosed):
            client.open()
        assert [late async for late in server] == []
        await client.wait_closed()
        await server.wait_closed()
        with pytest.raises(muxado.SessionClosed):
            server.open()
    for session, by_peer in ((client, False), (server, True)):
        reason = session.close_reason
        assert reason is not None
        assert (reason.code, reason.by_peer) == (0, by_peer)


async def test_both_sides_may_close_at_once(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (stream, other):
        await stream.write(b"x")
        await other.write(b"y")
        client.close()
        server.close()
    await client.wait_closed()
    await server.wait_closed()


async def test_abort_ends_both_sides_with_its_code(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (stream, other):
        async with running(stream.read()) as here, running(other.read()) as there:
            await client.ping()
            client.abort(99)
            with pytest.raises(muxado.SessionClosed):
                await here
            with pytest.raises(muxado.SessionAborted) as caught:
                await there
        assert caught.value.code == 99
        assert caught.value.reason is server.close_reason
        with pytest.raises(muxado.SessionClosed):
            await stream.write(b"x")
        with pytest.raises(muxado.SessionAborted):
            await other.write(b"x")
        with pytest.raises(muxado.SessionAborted):
            await anext(server)
    await client.wait_closed()
    await server.wait_closed()


async def test_leaving_a_session_normally_closes_it(session_pair: Ends) -> None:
    client, server = session_pair
    async with client, client.open() as stream:
        await stream.write(b"last words")
    assert client.closed
    async with await server.accept() as other:
        assert await other.read() == b"last words"
    await server.wait_closed()
    assert server.close_reason is not None
    assert server.close_reason.clean


async def test_leaving_a_session_by_an_exception_aborts_it(session_pair: Ends) -> None:
    client, server = session_pair
    with pytest.raises(ZeroDivisionError):
        async with client:
            raise ZeroDivisionError
    await server.wait_closed()
    assert server.close_reason is not None
    assert server.close_reason.code == ErrorCode.INTERNAL_ERROR


async def test_leaving_a_session_by_cancellation_aborts_it(session_pair: Ends) -> None:
    client, server = session_pair

    async def hang() -> None:
        async with client, client.open() as stream:
            await stream.read()

    async with running(hang()) as hanging, await server.accept() as other:
        await cancel(hanging)
        assert client.closed
        with pytest.raises(ConnectionError):
            await other.read()
        await server.wait_closed()


async def test_ending_a_session_again_is_harmless(session_pair: Ends) -> None:
    client, server = session_pair
    for session in (client, server):
        for _ in range(2):
            session.close()
        for _ in range(2):
            await session.wait_closed()
        reason = session.close_reason
        session.abort(5)
        session.go_away()
        session.close()
        await session.shutdown()
        assert session.close_reason is reason


# Accepting and serving


async def test_iteration_gives_the_streams_until_the_peer_closes(session_pair: Ends) -> None:
    client, server = session_pair
    ids = []
    for _ in range(3):
        async with client.open() as stream:
            await stream.write(b"x")
            ids.append(stream.id)
    client.close()
    got = []
    async for stream in server:
        got.append(stream.id)
        stream.close()
    assert got == ids


async def test_a_cancelled_accept_loses_no_stream(session_pair: Ends) -> None:
    client, server = session_pair
    async with running(server.accept()) as first, running(server.accept()) as second:
        await server.ping()
        await cancel(first)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await server.accept()
        async with client.open(eager=True) as stream, await second as other:
            assert other.id == stream.id


async def test_an_accept_cancelled_as_its_stream_comes_leaves_it_to_the_next(
    session_pair: Ends,
) -> None:
    client, server = session_pair

    async def cancel_the_first() -> None:
        await signalled.read(1)
        first.cancel()

    async with (
        opened(client, server) as (signal, signalled),
        running(server.accept()) as first,
        running(server.accept()) as second,
        running(cancel_the_first()),
    ):
        await server.ping()
        # They travel together: who reads is woken before who accepts.
        await signal.write(b"!")
        async with client.open(eager=True) as stream, await second as other:
            assert other.id == stream.id
            assert first.cancelled()


async def test_a_burst_of_streams_gives_the_application_its_turn(new_pair: NewPair) -> None:
    client, server = await new_pair(accept_backlog=8)

    async def ask() -> bytes:
        async with client.open() as stream:
            return await exchange(stream, b"x")

    async with running(server.serve(echo)):
        await server.ping()  # it waits for streams by now
        assert await asyncio.gather(*[ask() for _ in range(12)]) == [b"x"] * 12
    assert server.stats().refusals == 0


async def test_streams_beyond_a_full_accept_queue_are_refused(new_pair: NewPair) -> None:
    client, server = await new_pair(accept_backlog=8)
    streams = [client.open(eager=True) for _ in range(12)]
    await client.ping()
    for stream in streams[8:]:
        assert await stream.wait_reset() == ErrorCode.ACCEPT_QUEUE_FULL
        with pytest.raises(muxado.StreamRefused):
            await stream.read(1)
    for stream in streams[:8]:
        async with stream, await server.accept() as other:
            assert other.id == stream.id


async def test_serve_runs_a_limited_number_of_handlers(session_pair: Ends) -> None:
    client, server = session_pair
    go = asyncio.Event()
    at_once = []
    now = 0

    async def handle(stream: Stream) -> None:
        nonlocal now
        now += 1
        at_once.append(now)
        await go.wait()
        await stream.write(b"done")
        now -= 1

    streams = [client.open(eager=True) for _ in range(5)]
    async with running(server.serve(handle, limit=2)) as serving:
        await client.ping()
        assert at_once == [1, 2]
        go.set()
        for stream in streams:
            async with stream:
                assert await stream.read() == b"done"
        client.close()
        await serving
    assert max(at_once) == 2
    assert len(at_once) == 5


async def test_a_handler_that_raises_does_not_affect_other_streams(
    session_pair: Ends, caplog: pytest.LogCaptureFixture
) -> None:
    client, server = session_pair

    async def handle(stream: Stream) -> None:
        if await stream.readline() == b"fail\n":
            raise ZeroDivisionError("on request")
        await echo(stream)

    async with running(server.serve(handle)) as serving:
        async with client.open() as good, client.open() as bad:
            await good.write(b"go on\n")
            await bad.write(b"fail\n")
            assert await bad.wait_reset() == ErrorCode.INTERNAL_ERROR
            assert await exchange(good, b"after") == b"after"
        (record,) = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
        assert record.name == "muxado"
        assert f"stream {bad.id}" in record.getMessage()
        assert "ZeroDivisionError: on request" in caplog.text
        client.close()
        await serving


async def test_a_handler_that_returns_closes_its_stream(session_pair: Ends) -> None:
    client, server = session_pair

    async def answer(stream: Stream) -> None:
        await stream.write(b"hello")

    async with running(server.serve(answer)), client.open() as stream:
        assert await stream.read() == b"hello"


async def test_serve_returns_when_the_handlers_are_done(session_pair: Ends) -> None:
    client, server = session_pair
    go = asyncio.Event()
    ended = False

    async def handle(stream: Stream) -> None:
        nonlocal ended
        await go.wait()
        ended = True

    async with running(server.serve(handle)) as serving, client.open() as stream:
        stream.write_eof()
        await client.ping()
        client.close()
        await server.wait_closed()
        assert not serving.done()
        go.set()
        await serving
    assert ended


async def test_serve_raises_after_a_bad_end(session_pair: Ends) -> None:
    client, server = session_pair
    async with running(server.serve(echo)) as serving, client.open(eager=True) as stream:
        await client.ping()
        client.abort(42)
        with pytest.raises(muxado.SessionAborted) as caught:
            await serving
        assert caught.value.code == 42
        assert stream.is_closing()


async def test_a_cancelled_serve_cancels_its_handlers(session_pair: Ends) -> None:
    client, server = session_pair
    cancelled = asyncio.Event()

    async def handle(stream: Stream) -> None:
        try:
            await stream.read()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with running(server.serve(handle)) as serving, client.open(eager=True) as stream:
        await client.ping()
        await cancel(serving)
        assert cancelled.is_set()
        assert await stream.wait_reset() == ErrorCode.STREAM_CANCELLED
        assert not server.closed


# Looking


async def test_ping_gives_the_round_trip(session_pair: Ends) -> None:
    for session in session_pair:
        first, second = await asyncio.gather(session.ping(), session.ping())
        assert 0 < first < 5
        assert 0 < second < 5
        assert session.stats().rtt > 0


async def test_stats_count_both_ways(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (stream, other):
        await stream.write(b"x" * 1000)
        assert await other.readexactly(600) == b"x" * 600
        await other.write(b"y" * 10)
        assert await stream.readexactly(10) == b"y" * 10
        here, there = client.stats(), server.stats()
    assert (here.streams, here.streams_opened, here.streams_accepted) == (1, 1, 0)
    assert (there.streams, there.streams_opened, there.streams_accepted) == (1, 0, 1)
    assert (here.bytes_sent, here.bytes_received) == (1000, 10)
    assert (there.bytes_sent, there.bytes_received) == (10, 1000)
    assert (here.memory_held, there.memory_held) == (0, 400)
    await client.ping()
    assert client.stats().streams == server.stats().streams == 0


async def test_a_repr_tells_the_state(session_pair: Ends) -> None:
    client, server = session_pair
    assert repr(client).startswith("<Session client open ")
    assert repr(server).startswith("<Session server open ")
    async with opened(client, server) as (stream, other):
        assert "streams=1" in repr(client)
        assert repr(stream) == f"<Stream {stream.id} open unread=0 queued=0>"
        await stream.write(b"abc")
        assert "queued=3" in repr(stream)
        assert await other.read(1) == b"a"
        assert "unread=2" in repr(other)
        stream.write_eof()
        await stream.wait_closed()
        assert "local-done" in repr(stream)
        other.reset()
        assert "closed" in repr(other)
    client.close()
    assert "closing" in repr(client)
    await client.wait_closed()
    assert "closed" in repr(client)


async def test_priority_can_be_set_on_both_ends(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server, priority=3) as (stream, other):
        assert (stream.priority, other.priority) == (3, 0)
        other.priority = -8
        assert other.priority == -8
        for wrong in (-9, 8):
            with pytest.raises(muxado.UsageError):
                other.priority = wrong
            with pytest.raises(muxado.UsageError):
                client.open(priority=wrong)


async def test_wrong_arguments_change_nothing(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (stream, other):
        for wrong in (-1, 1 << 32):
            with pytest.raises(muxado.UsageError):
                stream.reset(wrong)
            with pytest.raises(muxado.UsageError):
                client.go_away(wrong)
            with pytest.raises(muxado.UsageError):
                client.abort(wrong)
        await stream.write(b"all is well")
        assert await other.read(100) == b"all is well"
        async with opened(server, client):
            assert not client.closed


async def test_errors_are_also_those_that_code_for_sockets_expects(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (stream, other):
        stream.write_eof()
        with pytest.raises(BrokenPipeError):
            await stream.write(b"x")
        other.reset(1)
        with pytest.raises(ConnectionResetError):
            await stream.read()
    client.abort()
    with pytest.raises(ConnectionError):
        client.open()
    with pytest.raises(ConnectionError):
        await client.ping()
