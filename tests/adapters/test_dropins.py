"""asyncio's own protocols over streams."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from muxado import MuxadoError, Session, SessionClosed, SessionError, StreamReset

from .conftest import Ends, Tls

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


@pytest.fixture
def way() -> str:
    """One way only: a stream is the same both ways."""
    return "dialled"


class Recorder(asyncio.Protocol):
    """Notes what it is told, and lets others wait for it."""

    transport: asyncio.Transport

    def __init__(self, keep_open: bool = False) -> None:
        loop = asyncio.get_running_loop()
        self.calls: list[str] = []
        self.data = bytearray()
        self.made: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[BaseException | None] = loop.create_future()
        self.paused = asyncio.Event()
        self.resumed = asyncio.Event()
        self.keep_open = keep_open
        self._wanted = 0
        self._enough: asyncio.Future[None] | None = None

    async def until(self, count: int) -> bytes:
        """Wait for `count` bytes in all."""
        self._wanted = count
        self._enough = asyncio.get_running_loop().create_future()
        self._check()
        await self._enough
        return bytes(self.data)

    def _check(self) -> None:
        if self._enough is not None and not self._enough.done() and len(self.data) >= self._wanted:
            self._enough.set_result(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.calls.append("made")
        self.made.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self.calls[-1] != "data":
            self.calls.append("data")
        self.data += data
        self._check()

    def eof_received(self) -> bool:
        self.calls.append("eof")
        self.ended.set_result(None)
        return self.keep_open

    def connection_lost(self, exc: BaseException | None) -> None:
        self.calls.append("lost")
        self.lost.set_result(exc)  # raises if it comes twice

    def pause_writing(self) -> None:
        self.calls.append("pause")
        self.paused.set()

    def resume_writing(self) -> None:
        self.calls.append("resume")
        self.resumed.set()


class Serving:
    """A server whose protocols can be waited for, in their order."""

    def __init__(self, session: Session, new: Callable[[], Recorder] = Recorder) -> None:
        self._new = new
        self._protocols: asyncio.Queue[Recorder] = asyncio.Queue()
        self.server = session.create_server(self._factory)

    def _factory(self) -> Recorder:
        protocol = self._new()
        self._protocols.put_nowait(protocol)
        return protocol

    async def next(self) -> Recorder:
        protocol = await self._protocols.get()
        await protocol.made
        return protocol


@pytest.fixture
async def problems() -> AsyncIterator[list[dict[str, Any]]]:
    """What the loop's exception handler is told, and no other code."""
    loop = asyncio.get_running_loop()
    found: list[dict[str, Any]] = []
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: found.append(context))
    yield found
    loop.set_exception_handler(before)


# Connecting


async def test_a_protocol_knows_its_transport_when_the_call_returns(ends: Ends) -> None:
    transport, protocol = await ends.calling.create_connection(Recorder)
    assert protocol.transport is transport
    assert protocol.calls == ["made"]
    assert transport.get_protocol() is protocol
    transport.abort()


async def test_data_goes_both_ways_and_a_close_ends_both(ends: Ends) -> None:
    serving = Serving(ends.serving)
    transport, protocol = await ends.calling.create_connection(Recorder)
    other = await serving.next()
    transport.write(b"ping")
    transport.writelines([b" ", bytearray(b"pong"), memoryview(b"!")])
    assert await other.until(10) == b"ping pong!"
    other.transport.write(b"yes")
    assert await protocol.until(3) == b"yes"
    transport.close()
    assert transport.is_closing()
    assert await other.lost is None
    assert await protocol.lost is None
    assert protocol.calls == ["made", "data", "lost"]
    assert other.calls == ["made", "data", "eof", "lost"]


async def test_what_was_written_before_a_close_arrives(ends: Ends) -> None:
    serving = Serving(ends.serving)
    transport, protocol = await ends.calling.create_connection(Recorder)
    transport.write(bytes(3 * MIB))
    transport.close()
    transport.write(b"too late")  # asyncio's own says nothing either
    other = await serving.next()
    await other.ended
    assert len(other.data) == 3 * MIB
    assert await protocol.lost is None


async def test_an_exception_in_connection_made_reaches_the_caller(ends: Ends) -> None:
    class Failing(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            raise ArithmeticError("no")

    with pytest.raises(ArithmeticError):
        await ends.calling.create_connection(Failing)


async def test_a_factory_that_fails_costs_one_stream(
    ends: Ends, problems: list[dict[str, Any]]
) -> None:
    failures = [ArithmeticError("the first one")]

    def new() -> Recorder:
        if failures:
            raise failures.pop()
        return Recorder()

    serving = Serving(ends.serving, new)
    _, first = await ends.calling.create_connection(Recorder)
    assert isinstance(await first.lost, StreamReset)
    second, _ = await ends.calling.create_connection(Recorder)
    second.write(b"x")
    assert await (await serving.next()).until(1) == b"x"
    assert isinstance(problems[0]["exception"], ArithmeticError)


async def test_a_closed_server_takes_no_more_and_leaves_the_rest(ends: Ends) -> None:
    serving = Serving(ends.serving)
    transport, _ = await ends.calling.create_connection(Recorder)
    other = await serving.next()
    assert serving.server.is_serving()
    serving.server.close()
    waiting = asyncio.ensure_future(serving.server.wait_closed())
    transport.write(b"still here")
    await other.until(10)
    assert not serving.server.is_serving()
    async with ends.calling.open(eager=True), await ends.serving.accept():
        pass
    assert not waiting.done()  # as asyncio's own since Python 3.12: not before its streams
    transport.abort()
    await waiting
    assert "lost" in other.calls


async def test_serve_forever_ends_with_the_session(ends: Ends) -> None:
    server = ends.serving.create_server(Recorder)
    ends.calling.close()
    await server.serve_forever()
    assert not server.is_serving()


async def test_serve_forever_raises_what_ended_the_session(ends: Ends) -> None:
    server = ends.serving.create_server(Recorder)
    ends.calling.abort(2)
    with pytest.raises(SessionError):
        await server.serve_forever()


# Half-close


async def test_eof_received_true_keeps_the_transport_for_writing(ends: Ends) -> None:
    serving = Serving(ends.serving, lambda: Recorder(keep_open=True))
    transport, protocol = await ends.calling.create_connection(lambda: Recorder(keep_open=True))
    other = await serving.next()
    assert transport.can_write_eof()
    transport.write(b"question")
    transport.write_eof()
    transport.write_eof()
    await other.ended
    assert not other.transport.is_closing()
    other.transport.write(b"answer")
    other.transport.close()
    assert await protocol.until(6) == b"answer"
    await protocol.ended
    assert await other.lost is None
    assert other.calls == ["made", "data", "eof", "lost"]
    await ends.calling.ping()
    assert not transport.is_closing()  # both ends are through, but it keeps its own open
    assert protocol.calls[-1] == "eof"
    transport.close()
    assert await protocol.lost is None


async def test_eof_received_false_closes(ends: Ends) -> None:
    serving = Serving(ends.serving)
    transport, protocol = await ends.calling.create_connection(Recorder)
    transport.write_eof()
    other = await serving.next()
    assert await other.lost is None
    assert await protocol.lost is None
    assert protocol.calls == ["made", "eof", "lost"]


async def test_a_write_after_write_eof_is_a_mistake_that_costs_nothing(
    ends: Ends,
) -> None:
    serving = Serving(ends.serving, lambda: Recorder(keep_open=True))
    transport, protocol = await ends.calling.create_connection(Recorder)
    transport.write_eof()
    with pytest.raises(RuntimeError, match="after write_eof"):
        transport.write(b"more")
    other = await serving.next()
    other.transport.write(b"all is well")
    assert await protocol.until(11) == b"all is well"
    other.transport.close()
    assert await protocol.lost is None


# Flow control


async def test_the_writer_is_paused_and_resumed(ends: Ends) -> None:
    serving = Serving(ends.serving)
    transport, protocol = await ends.calling.create_connection(Recorder)
    transport.write(b"!")
    other = await serving.next()
    await other.until(1)
    other.transport.pause_reading()
    assert not other.transport.is_reading()
    transport.write(bytes(4 * MIB))
    assert protocol.paused.is_set()
    assert transport.get_write_buffer_size() > transport.get_write_buffer_limits()[1]
    assert not protocol.resumed.is_set()
    other.transport.resume_reading()
    await protocol.resumed.wait()
    assert transport.get_write_buffer_size() <= transport.get_write_buffer_limits()[0]
    await other.until(1 + 4 * MIB)
    assert protocol.calls == ["made", "pause", "resume"]
    transport.close()
    await other.lost


@pytest.mark.parametrize(("high", "low"), [(0, 0), (1000, 0), (2000, 1000), (8 * MIB, 6 * MIB)])
async def test_the_writers_limits_are_kept(ends: Ends, high: int, low: int) -> None:
    serving = Serving(ends.serving)
    transport, protocol = await ends.calling.create_connection(Recorder)
    transport.set_write_buffer_limits(high=high, low=low)
    assert transport.get_write_buffer_limits() == (low, high)
    transport.write(bytes(high))
    assert not protocol.paused.is_set()
    transport.write(b"!")
    assert protocol.paused.is_set()
    await protocol.resumed.wait()
    assert transport.get_write_buffer_size() <= low
    other = await serving.next()
    await other.until(high + 1)
    transport.abort()


async def test_limits_below_what_is_queued_pause_at_once(ends: Ends) -> None:
    Serving(ends.serving)
    transport, protocol = await ends.calling.create_connection(Recorder)
    transport.write(b"some bytes")
    transport.set_write_buffer_limits(high=5)
    assert protocol.paused.is_set()
    await protocol.resumed.wait()
    with pytest.raises(ValueError, match="high"):
        transport.set_write_buffer_limits(high=1, low=2)
    transport.abort()


async def test_a_paused_reader_gets_nothing_and_then_everything_in_order(
    ends: Ends,
) -> None:
    class Pausing(Recorder):
        pieces = 0

        def data_received(self, data: bytes) -> None:
            assert self.transport.is_reading()
            super().data_received(data)
            self.pieces += 1
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self.transport.resume_reading)

    serving = Serving(ends.serving, Pausing)
    transport, _ = await ends.calling.create_connection(Recorder)
    data = bytes(range(256)) * 4096
    transport.write(data)
    transport.write_eof()
    other = await serving.next()
    await other.ended
    assert other.data == data
    assert isinstance(other, Pausing)
    assert other.pieces > 1
    assert await other.lost is None


# The end


async def test_abort_resets_and_drops_what_is_queued(ends: Ends) -> None:
    serving = Serving(ends.serving)
    transport, protocol = await ends.calling.create_connection(Recorder)
    other = await serving.next()
    other.transport.pause_reading()
    transport.write(bytes(8 * MIB))
    transport.abort()
    transport.abort()
    transport.close()
    assert await protocol.lost is None
    other.transport.resume_reading()
    lost = await other.lost
    assert isinstance(lost, StreamReset)
    assert lost.by_peer
    assert len(other.data) < 8 * MIB


async def test_a_reset_comes_after_the_data_before_it(ends: Ends) -> None:
    serving = Serving(ends.serving)
    async with ends.calling.open() as stream:
        await stream.write(b"first")
        other = await serving.next()
        await other.until(5)
        other.transport.pause_reading()
        await stream.write(b" second")
        await ends.calling.ping()
        stream.reset(77)
        await ends.calling.ping()
        assert not other.lost.done()
        other.transport.resume_reading()
        lost = await other.lost
    assert isinstance(lost, StreamReset)
    assert lost.code == 77
    assert other.data == b"first second"
    assert other.transport.is_closing()


async def test_a_reset_before_everything_is_out_is_told_after_a_close(
    ends: Ends,
) -> None:
    _, protocol = await ends.calling.create_connection(Recorder)
    protocol.transport.write(bytes(8 * MIB))
    protocol.transport.close()
    async with await ends.serving.accept() as stream:
        await stream.read(1)
        stream.reset(5)
    lost = await protocol.lost
    assert isinstance(lost, StreamReset)
    assert lost.code == 5


@pytest.mark.parametrize("who", ["us", "the peer"])
async def test_the_end_of_the_session_is_the_end_of_its_transports(ends: Ends, who: str) -> None:
    serving = Serving(ends.serving)
    transport, protocol = await ends.calling.create_connection(Recorder)
    other = await serving.next()
    transport.write(b"hello")
    await other.until(5)
    (ends.calling if who == "us" else ends.serving).close()
    assert isinstance(await protocol.lost, SessionClosed)
    assert isinstance(await other.lost, SessionClosed)
    transport.write(b"into the void")
    assert protocol.calls == ["made", "lost"]


async def test_a_session_that_breaks_off_tells_every_transport(ends: Ends) -> None:
    serving = Serving(ends.serving)
    pairs = [await ends.calling.create_connection(Recorder) for _ in range(10)]
    others = [await serving.next() for _ in pairs]
    ends.calling.abort(2)
    for recorder in [protocol for _, protocol in pairs] + others:
        assert isinstance(await recorder.lost, MuxadoError | ConnectionError)
        assert recorder.calls == ["made", "lost"]


@pytest.mark.parametrize("callback", ["data_received", "eof_received"])
async def test_a_protocol_that_raises_loses_its_stream(
    ends: Ends, problems: list[dict[str, Any]], callback: str
) -> None:
    class Failing(Recorder):
        def data_received(self, data: bytes) -> None:
            if callback == "data_received":
                raise ArithmeticError("data")

        def eof_received(self) -> bool:
            raise ArithmeticError("eof")

    serving = Serving(ends.serving, Failing)
    transport, protocol = await ends.calling.create_connection(Recorder)
    transport.write(b"x")
    transport.write_eof()
    other = await serving.next()
    assert isinstance(await other.lost, ArithmeticError)
    assert isinstance(await protocol.lost, StreamReset)
    assert [str(problem["exception"]) for problem in problems] == [callback.split("_")[0]]
    assert callback in problems[0]["message"]


# Buffered protocols, other protocols, and what a transport says of itself


class Buffered(asyncio.BufferedProtocol):
    def __init__(self, size: int) -> None:
        self.buffer = bytearray(size)
        self.data = bytearray()
        self.lost: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        assert 0 < nbytes <= len(self.buffer)
        self.data += self.buffer[:nbytes]

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost.set_result(exc)


@pytest.mark.parametrize("size", [1000, 256 * 1024])
async def test_a_buffered_protocol(ends: Ends, size: int) -> None:
    transport, protocol = await ends.calling.create_connection(lambda: Buffered(size))
    data = bytes(range(250)) * 1200
    async with await ends.serving.accept() as stream:
        await stream.write(data)
    assert await protocol.lost is None
    assert protocol.data == data
    assert transport.is_closing()


async def test_a_buffered_protocol_without_room_fails(
    ends: Ends, problems: list[dict[str, Any]]
) -> None:
    _, protocol = await ends.calling.create_connection(lambda: Buffered(0))
    async with await ends.serving.accept() as stream:
        await stream.write(b"x")
        assert isinstance(await protocol.lost, RuntimeError)
    assert len(problems) == 1


async def test_the_protocol_may_change_between_two_pieces(ends: Ends) -> None:
    buffered: list[Buffered] = []

    class First(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            buffered.append(Buffered(10))
            self.transport.set_protocol(buffered[0])

    serving = Serving(ends.serving, First)
    transport, _ = await ends.calling.create_connection(Recorder)
    transport.write(b"first")
    other = await serving.next()
    await other.until(5)
    transport.write(b"second")
    transport.close()
    assert await buffered[0].lost is None
    assert other.data == b"first"
    assert buffered[0].data == b"second"


async def test_extra_info(ends: Ends) -> None:
    transport, _ = await ends.calling.create_connection(Recorder)
    assert transport.get_extra_info("peername") == ends.calling.remote_address
    assert transport.get_extra_info("sockname") == ends.calling.local_address
    assert transport.get_extra_info("muxado_session") is ends.calling
    assert transport.get_extra_info("socket") is None
    assert transport.get_extra_info("nonsense", 7) == 7
    assert "StreamTransport" in repr(transport)
    transport.abort()


@pytest.mark.parametrize(
    "anyio_backend", [pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio")]
)
async def test_a_file_is_sent_by_the_loop(ends: Ends, tmp_path: Path) -> None:
    """uvloop has sendfile() for sockets of its own alone; its callers do without."""
    data = bytes(range(256)) * 8192
    (tmp_path / "file").write_bytes(data)
    serving = Serving(ends.serving)
    transport, _ = await ends.calling.create_connection(Recorder)
    with (tmp_path / "file").open("rb") as file:
        sent = await asyncio.get_running_loop().sendfile(transport, file, 100)
    assert sent == len(data) - 100
    transport.close()
    other = await serving.next()
    await other.ended
    assert other.data == data[100:]


# TLS inside a stream


async def test_tls_inside_a_stream(ends: Ends, tls: Tls) -> None:
    server = ends.serving.create_server(recorded := _Last(), ssl=tls.server)
    transport, protocol = await ends.calling.create_connection(
        Recorder, ssl=tls.client, server_hostname="service.internal"
    )
    assert protocol.transport is transport
    assert transport.get_extra_info("peercert")["subjectAltName"] == (("DNS", "service.internal"),)
    assert transport.get_extra_info("muxado_session") is ends.calling
    transport.write(b"secret" + bytes(MIB))
    await recorded.last.until(6 + MIB)
    recorded.last.transport.write(bytes(MIB))
    await protocol.until(MIB)
    transport.close()
    assert await protocol.lost is None
    assert await recorded.last.lost is None
    server.close()


async def test_a_certificate_of_another_name_is_refused(
    ends: Ends, tls: Tls, problems: list[dict[str, Any]]
) -> None:
    server = ends.serving.create_server(Recorder, ssl=tls.server)
    with pytest.raises(ssl.SSLCertVerificationError, match="elsewhere"):
        await ends.calling.create_connection(
            Recorder, ssl=tls.client, server_hostname="elsewhere.internal"
        )
    server.close()


async def test_a_peer_that_hangs_up_in_the_handshake(ends: Ends, tls: Tls) -> None:
    connecting = asyncio.ensure_future(
        ends.calling.create_connection(Recorder, ssl=tls.client, server_hostname="service.internal")
    )
    async with await ends.serving.accept() as stream:
        await stream.read(1)
    with pytest.raises(ConnectionResetError):
        await connecting


async def test_a_peer_that_speaks_no_tls(
    ends: Ends, tls: Tls, problems: list[dict[str, Any]]
) -> None:
    connecting = asyncio.ensure_future(
        ends.calling.create_connection(Recorder, ssl=tls.client, server_hostname="service.internal")
    )
    async with await ends.serving.accept() as stream:
        await stream.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(ssl.SSLError):
            await connecting


class _Last:
    """A factory that keeps what it made."""

    last: Recorder

    def __call__(self) -> Recorder:
        self.last = Recorder()
        return self.last
