"""How asyncio's transports over streams end, for protocols and for pairs of reader and writer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import muxado
from muxado import Config, ErrorCode, Session, Stream, StreamReset
from muxado.testing import asyncio_pair

from ..certificates import Tls
from ..helpers import running
from ..transports import Ends

pytestmark = pytest.mark.anyio


@pytest.fixture
async def ends(no_tasks_left: None) -> AsyncIterator[Ends]:
    """Two sessions; the client's streams go to whatever the test has the server do."""
    async with asyncio_pair(Config(ping_interval=None)) as (client, server):
        yield Ends(client, server)
        for session in (client, server):
            session.abort()


class Recorder(asyncio.Protocol):
    """Notes its calls."""

    def __init__(self, keep_open: bool = False) -> None:
        self.keep_open = keep_open
        self.calls: list[object] = []
        self.transport: Any = None
        self.lost: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self.eof = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.calls.append(data)

    def eof_received(self) -> bool:
        self.calls.append("eof")
        self.eof.set()
        return self.keep_open

    def connection_lost(self, exc: BaseException | None) -> None:
        self.calls.append("lost")
        self.lost.set_result(exc)


def noting(made: list[Any], make: Callable[[], Any]) -> Callable[[], Any]:
    """Return a factory of protocols that notes what it makes."""

    def factory() -> Any:
        made.append(make())
        return made[-1]

    return factory


# An end that has come stays clean


async def answer_early(stream: Stream) -> None:
    """Answer what was not read: a FIN goes out, and a RST after it."""
    await stream.read(1)
    await stream.write(b"the whole answer")


async def test_an_answer_with_a_fin_is_whole_for_a_protocol_whatever_follows(ends: Ends) -> None:
    async with running(ends.server.serve(answer_early)):
        transport, recorder = await ends.client.create_connection(Recorder)
        transport.write(bytes(10))
        assert await recorder.lost is None
        assert recorder.calls == [b"the whole answer", "eof", "lost"]


async def test_an_answer_with_a_fin_is_whole_for_a_paused_protocol_that_writes_on(
    ends: Ends,
) -> None:
    async with running(ends.server.serve(answer_early)):
        transport, recorder = await ends.client.create_connection(Recorder)
        transport.pause_reading()
        transport.write(bytes(10))
        while not ends.client.stats().resets_received:
            await ends.client.ping()
        transport.write(b"more")
        await ends.client.ping()
        assert recorder.calls == []
        transport.resume_reading()
        await recorder.lost
        assert recorder.calls == [b"the whole answer", "eof", "lost"]


async def test_an_answer_with_a_fin_is_whole_for_a_reader_whatever_follows(ends: Ends) -> None:
    async with running(ends.server.serve(answer_early)):
        reader, writer = await ends.client.open_connection()
        writer.write(bytes(10))
        assert await reader.read() == b"the whole answer"
        writer.close()
        await writer.wait_closed()


async def test_a_writer_hears_that_what_it_wrote_never_went_out(ends: Ends) -> None:
    async with running(ends.server.serve(answer_early)):
        reader, writer = await ends.client.open_connection()
        writer.write(bytes(1_000_000))  # more than the window
        with pytest.raises(StreamReset):
            await writer.drain()
        assert await reader.read() == b"the whole answer"
        writer.close()
        with pytest.raises(StreamReset):
            await writer.wait_closed()


async def test_a_writer_that_waits_is_not_held_up_by_what_is_unread(ends: Ends) -> None:
    async def answer_much(stream: Stream) -> None:
        await stream.read(1)
        await stream.write(bytes(200_000))

    async with running(ends.server.serve(answer_much)):
        reader, writer = await ends.client.open_connection(limit=100)
        writer.write(bytes(1_000_000))
        with contextlib.suppress(StreamReset):
            await writer.drain()
        assert await reader.read() == bytes(200_000)
        writer.close()
        with pytest.raises(StreamReset):
            await writer.wait_closed()


async def test_a_reset_without_a_fin_is_no_end(ends: Ends) -> None:
    async def fail(stream: Stream) -> None:
        await stream.write(b"part")
        await stream.read(1)
        stream.reset(7)

    async with running(ends.server.serve(fail)):
        transport, recorder = await ends.client.create_connection(Recorder)
        reader, writer = await ends.client.open_connection()
        assert await reader.readexactly(4) == b"part"
        for each in (transport, writer):
            each.write(b"x")
        lost = await recorder.lost
        assert isinstance(lost, StreamReset)
        assert lost.code == 7
        assert recorder.calls == [b"part", "lost"]
        with pytest.raises(StreamReset):
            await reader.read()
        writer.close()


# A stream that was cut short is no clean end


async def send_much(stream: Stream) -> None:
    await stream.write(bytes(200_000))
    stream.write_eof()
    await stream.wait_reset()


async def arrived(session: Session) -> None:
    while session.stats().bytes_received < 200_000:
        await session.ping()


@pytest.mark.parametrize("end", [Session.close, Session.abort])
async def test_closing_the_session_cuts_a_reader_short_with_an_error(
    ends: Ends, end: Callable[[Session], None]
) -> None:
    async with running(ends.server.serve(send_much)):
        reader, writer = await ends.client.open_connection()
        await arrived(ends.client)
        end(ends.client)
        with pytest.raises(muxado.SessionError):
            await reader.read()
        writer.close()


@pytest.mark.parametrize("end", [Session.close, Session.abort])
async def test_closing_the_session_cuts_a_paused_protocol_short_with_an_error(
    ends: Ends, end: Callable[[Session], None]
) -> None:
    async with running(ends.server.serve(send_much)):
        transport, recorder = await ends.client.create_connection(lambda: Recorder(keep_open=True))
        transport.pause_reading()
        await arrived(ends.client)
        end(ends.client)
        assert isinstance(await recorder.lost, muxado.SessionError)
        transport.resume_reading()
        assert recorder.calls == ["lost"]


async def test_closing_the_session_cuts_a_stream_short_with_an_error(ends: Ends) -> None:
    async with running(ends.server.serve(send_much)), ends.client.open() as stream:
        await stream.read(1)
        await arrived(ends.client)
        ends.client.close()
        assert not stream.at_eof()
        for read in (stream.read(), stream.readexactly(199_999), stream.readline()):
            with pytest.raises(muxado.SessionClosed):
                await read


async def test_a_stream_that_is_over_is_read_to_its_end_after_the_session_was_closed(
    ends: Ends,
) -> None:
    async with running(ends.server.serve(send_much)):
        transport, recorder = await ends.client.create_connection(lambda: Recorder(keep_open=True))
        transport.pause_reading()
        transport.write_eof()
        await arrived(ends.client)
        while ends.client.stats().streams:
            await ends.client.ping()
        ends.client.close()
        transport.resume_reading()
        await recorder.eof.wait()
        assert b"".join(c for c in recorder.calls if isinstance(c, bytes)) == bytes(200_000)
        transport.close()
        assert await recorder.lost is None


async def test_the_loss_of_the_session_is_an_error_for_a_transport_in_between(
    ends: Ends,
) -> None:
    server = ends.server.create_server(Recorder)
    transport, recorder = await ends.client.create_connection(Recorder)
    transport.write(b"x")
    await ends.client.ping()
    ends.server.abort(9)
    assert isinstance(await recorder.lost, muxado.SessionError)
    server.close()


# Kept open after the end


async def test_what_keeps_its_transport_open_hears_nothing_until_it_closes_it(ends: Ends) -> None:
    made: list[Recorder] = []
    server = ends.server.create_server(noting(made, lambda: Recorder(True)))
    reader, writer = await ends.client.open_connection()
    writer.write_eof()
    await ends.client.ping()
    await made[0].eof.wait()
    made[0].transport.write(b"late")
    made[0].transport.write_eof()
    assert await reader.read() == b"late"
    await ends.client.ping()
    assert made[0].calls == ["eof"]
    assert not made[0].transport.is_closing()
    made[0].transport.close()
    assert await made[0].lost is None
    server.close()
    writer.close()


async def test_what_keeps_its_transport_open_hears_of_a_reset(ends: Ends) -> None:
    made: list[Recorder] = []
    server = ends.server.create_server(noting(made, lambda: Recorder(True)))
    stream = ends.client.open()
    await stream.write(b"x")
    stream.write_eof()
    await ends.client.ping()
    await made[0].eof.wait()
    stream.reset(7)
    assert isinstance(await made[0].lost, StreamReset)
    server.close()


# What callbacks raise


class Failing(Recorder):
    """Raises in one of its callbacks."""

    def __init__(self, where: str, exc: BaseException) -> None:
        super().__init__()
        self.where = where
        self.exc = exc

    def fail(self, where: str) -> None:
        if self.where == where:
            self.where = ""
            raise self.exc

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.fail("connection_made")

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.fail("data_received")

    def eof_received(self) -> bool:
        self.fail("eof_received")
        return super().eof_received()


class FailingBuffered(asyncio.BufferedProtocol):
    """Raises in one of the callbacks of a buffered protocol."""

    def __init__(self, where: str, exc: BaseException) -> None:
        self.where = where
        self.exc = exc
        self.lost: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    def get_buffer(self, sizehint: int) -> bytearray:
        if self.where == "get_buffer":
            raise self.exc
        return bytearray(10)

    def buffer_updated(self, nbytes: int) -> None:
        raise self.exc

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(exc)


EXCEPTIONS = [
    ValueError("x"),
    asyncio.CancelledError(),
    ConnectionResetError("x"),
    StreamReset("x", code=7, by_peer=True),
]
CALLBACKS = ["connection_made", "data_received", "eof_received", "get_buffer", "buffer_updated"]


@pytest.fixture
def reported(anyio_backend: object) -> list[dict[str, Any]]:
    """What the loop's exception handler is told; to be asked for by the test's own loop."""
    return []


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("exc", EXCEPTIONS, ids=lambda exc: type(exc).__name__)
@pytest.mark.parametrize("where", CALLBACKS)
async def test_a_callback_that_raises_ends_its_stream_and_is_reported_as_over_tcp(
    ends: Ends, where: str, exc: BaseException, debug: bool, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    reported: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: reported.append(context))
    was_debug = loop.get_debug()
    loop.set_debug(debug)
    caplog.set_level(logging.DEBUG, "muxado")
    made: list[Any] = []
    kind: Any = FailingBuffered if where in ("get_buffer", "buffer_updated") else Failing
    try:
        server = ends.server.create_server(noting(made, lambda: kind(where, exc)))
        stream = ends.client.open()
        await stream.write(b"x")
        stream.write_eof()
        code = await stream.wait_reset()
        assert await made[0].lost is exc
    finally:
        loop.set_debug(was_debug)
        loop.set_exception_handler(None)
        server.close()
    failed = isinstance(exc, Exception)
    assert code == (ErrorCode.INTERNAL_ERROR if failed else ErrorCode.STREAM_CANCELLED)
    message = f"Fatal error: protocol.{where}() call failed."
    if isinstance(exc, OSError):
        assert reported == []
        assert (message in caplog.text) is debug
    else:
        assert [context["message"] for context in reported] == [message]
        assert reported[0]["exception"] is exc
        assert reported[0]["protocol"] is made[0]


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ValueError("x"), ValueError),
        (ConnectionResetError("x"), ConnectionResetError),
        (asyncio.CancelledError(), ConnectionAbortedError),
        (StopIteration(), ConnectionAbortedError),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_create_connection_raises_what_connection_made_raises(
    ends: Ends, raised: BaseException, expected: type[Exception]
) -> None:
    with pytest.raises(expected) as caught:
        await ends.client.create_connection(lambda: Failing("connection_made", raised))
    assert raised in (caught.value, caught.value.__cause__)
    assert ends.client.stats().streams == 0
    await ends.client.ping()


async def test_create_connection_does_not_look_cancelled_by_a_protocol_inside_tls(
    ends: Ends, tls: Tls
) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    server = ends.server.create_server(Recorder, ssl=tls.server)
    with pytest.raises(ConnectionAbortedError, match="CancelledError"):
        await ends.client.create_connection(
            lambda: Failing("connection_made", asyncio.CancelledError()),
            "localhost",
            ssl=tls.client,
        )
    asyncio.get_running_loop().set_exception_handler(None)
    server.close()


@pytest.mark.parametrize("exc", [ValueError("x"), asyncio.CancelledError()])
async def test_a_factory_that_raises_costs_one_stream(ends: Ends, exc: BaseException) -> None:
    loop = asyncio.get_running_loop()
    reported: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: reported.append(context))
    made: list[Recorder] = []

    def factory() -> Recorder:
        made.append(Recorder())
        if len(made) == 1:
            raise exc
        return made[-1]

    server = ends.server.create_server(factory)
    stream = ends.client.open(eager=True)
    assert await stream.wait_reset() == ErrorCode.INTERNAL_ERROR
    assert [context["exception"] for context in reported] == [exc]
    async with ends.client.open() as other:
        await other.write(b"x")
    while len(made) < 2:
        await ends.client.ping()
    assert await made[1].lost is None
    loop.set_exception_handler(None)
    server.close()


@pytest.mark.parametrize("where", ["pause_writing", "resume_writing"])
async def test_a_callback_of_flow_control_that_raises_is_reported_and_ends_nothing(
    ends: Ends, where: str
) -> None:
    class Paused(Recorder):
        def pause_writing(self) -> None:
            self.calls.append("paused")
            if where == "pause_writing":
                raise asyncio.CancelledError

        def resume_writing(self) -> None:
            self.calls.append("resumed")
            if where == "resume_writing":
                raise asyncio.CancelledError

    loop = asyncio.get_running_loop()
    reported: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda loop, context: reported.append(context))
    transport, recorder = await ends.client.create_connection(Paused)
    transport.write(bytes(1_000_000))
    async with await ends.server.accept() as stream:
        assert len(await stream.readexactly(1_000_000)) == 1_000_000
        transport.write_eof()
        assert await stream.read() == b""
    loop.set_exception_handler(None)
    assert recorder.calls[:2] == ["paused", "resumed"]
    assert [context["message"] for context in reported] == [f"protocol.{where}() failed"]
    transport.close()
    assert await recorder.lost is None


@pytest.mark.parametrize("exc", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["connection_made", "data_received", "eof_received"])
def test_an_interrupt_in_a_callback_ends_the_run_and_not_the_stream(
    exc: type[BaseException], where: str
) -> None:
    loop = asyncio.new_event_loop()
    made: list[Failing] = []

    async def begin() -> None:
        pair = asyncio_pair()
        client, server = await pair.__aenter__()
        kept.extend((pair, server.create_server(noting(made, lambda: Failing(where, exc())))))
        reader, writer = await client.open_connection()
        writer.write(b"x")
        writer.write_eof()
        kept.append((reader, writer))
        await asyncio.Event().wait()

    async def go_on() -> None:
        pair, server, (reader, writer) = kept
        task.cancel()
        assert await made[0].lost is None
        assert made[0].calls[-3:] == [b"x", "eof", "lost"]
        assert await reader.read() == b""
        writer.close()
        server.close()
        await pair.__aexit__(None, None, None)

    kept: list[Any] = []
    try:
        task = loop.create_task(begin())
        with pytest.raises(exc):
            loop.run_until_complete(task)
        loop.run_until_complete(asyncio.wait_for(go_on(), 10))
    finally:
        loop.close()


async def test_a_client_of_the_transport_is_no_longer_held_at_its_end(ends: Ends) -> None:
    transport, recorder = await ends.client.create_connection(Recorder)
    transport.abort()
    await recorder.lost
    assert transport.get_protocol() is None


# Servers


@pytest.mark.parametrize("how", ["close_clients", "abort_clients"])
async def test_the_clients_of_a_server_can_be_ended(ends: Ends, how: str) -> None:
    made: list[Recorder] = []
    server = ends.server.create_server(noting(made, lambda: Recorder()))
    pairs = [await ends.client.open_connection() for _ in range(3)]
    await ends.client.ping()
    getattr(server, how)()
    assert server.is_serving()
    for reader, writer in pairs:
        if how == "close_clients":
            assert await reader.read() == b""
        else:
            with pytest.raises(StreamReset):
                await reader.read()
        writer.close()
    assert [await protocol.lost for protocol in made] == [None] * 3
    server.close()
    await server.wait_closed()


async def test_a_closed_server_is_waited_for_until_its_streams_are_done(ends: Ends) -> None:
    server = ends.server.create_server(Recorder)
    _, writer = await ends.client.open_connection()
    await ends.client.ping()
    server.close()
    waiting = asyncio.ensure_future(server.wait_closed())
    await ends.client.ping()
    assert not waiting.done()
    writer.close()
    await waiting
    await server.wait_closed()


# TLS inside, and what libraries pass


@pytest.mark.parametrize("call", ["create_connection", "open_connection"])
async def test_tls_inside_needs_a_name_to_check(ends: Ends, tls: Tls, call: str) -> None:
    arguments: tuple[Any, ...] = (Recorder,) if call == "create_connection" else ()
    dial = getattr(ends.client, call)
    for options in ({"ssl": tls.client}, {"ssl": tls.client, "server_hostname": ""}, {"ssl": True}):
        with pytest.raises(muxado.UsageError, match="server_hostname"):
            await dial(*arguments, **options)
    with pytest.raises(muxado.UsageError, match="ssl"):
        await dial(*arguments, server_hostname="localhost")
    assert ends.client.stats().streams_opened == 0


@pytest.mark.parametrize("name", [{"server_hostname": "wrong.example"}, {"host": "wrong.example"}])
async def test_tls_inside_checks_the_name(ends: Ends, tls: Tls, name: dict[str, str]) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    server = ends.server.create_server(Recorder, ssl=tls.server)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        await ends.client.create_connection(Recorder, ssl=tls.client, **name)  # type: ignore[arg-type]
    asyncio.get_running_loop().set_exception_handler(None)
    server.close()


async def test_tls_inside_with_the_systems_authorities_trusts_no_other(
    ends: Ends, tls: Tls
) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    server = ends.server.create_server(Recorder, ssl=tls.server)
    with pytest.raises(ssl.SSLCertVerificationError):
        await ends.client.create_connection(Recorder, "localhost", 443, ssl=True)
    asyncio.get_running_loop().set_exception_handler(None)
    server.close()


async def test_a_pair_over_tls_inside(ends: Ends, tls: Tls) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        writer.close()

    server = ends.server.start_server(shout, ssl=tls.server)
    reader, writer = await ends.client.open_connection("localhost", 443, ssl=tls.client)
    writer.write(b"hello\n")
    assert await reader.read() == b"HELLO\n"
    writer.close()
    server.close()
    await server.wait_closed()


async def test_a_host_and_a_port_lead_to_the_peer(ends: Ends) -> None:
    transport, _ = await ends.client.create_connection(Recorder, "some.where", 22)
    reader, writer = await ends.client.open_connection("some.where", 22)
    async with await ends.server.accept(), await ends.server.accept():
        pass
    assert await reader.read() == b""
    transport.close()
    writer.close()
