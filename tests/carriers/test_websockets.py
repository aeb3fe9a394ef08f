"""WebSockets that carry sessions: their handshakes, their ends, and peers that break the rules."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import websockets.asyncio.client
import websockets.asyncio.server
from websockets.exceptions import InvalidStatus
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

import muxado
from muxado import Config, Session
from muxado.carriers.errors import HandshakeRefused, WebSocketLost
from muxado.carriers.websockets import connect, serve
from tests.certificates import Tls

from .roads import SERVERS, Arrivals, websockets_server

pytestmark = pytest.mark.anyio

Websocket = websockets.asyncio.client.ClientConnection
ServerWebsocket = websockets.asyncio.server.ServerConnection

ROADS = [pytest.param(name) for name in SERVERS if name != "uvicorn-websockets"]


GREETING = (
    b"GET /mux HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
HELLO = bytes.fromhex("0000051200000003") + b"hello"  # the first frame of a stream
FIN = bytes.fromhex("0000001100000003")


async def echo(session: Session) -> None:
    async def answer(stream: muxado.Stream) -> None:
        await stream.write(await stream.read())
        stream.write_eof()

    await session.serve(answer)


async def ask(session: Session, question: bytes) -> bytes:
    async with session.open() as stream:
        await stream.write(question)
        stream.write_eof()
        return await stream.read()


@asynccontextmanager
async def raw_client(port: int, path: str = "/mux") -> AsyncIterator[Websocket]:
    """Dial as a program that uses the library `websockets` and knows nothing of sessions."""
    url = f"ws://127.0.0.1:{port}{path}"
    protocols = [Subprotocol("muxado.v2")]
    async with websockets.asyncio.client.connect(url, subprotocols=protocols) as websocket:
        yield websocket


# The handshake


@pytest.mark.parametrize("name", ROADS)
async def test_both_sides_see_the_headers_and_the_subprotocol(name: str) -> None:
    arrivals = Arrivals()
    async with SERVERS[name](arrivals.handle, Config()) as port:
        url = f"ws://127.0.0.1:{port}/mux?token=secret"
        async with connect(url, headers={"Authorization": "Bearer abc"}) as client:
            server = await arrivals.sessions.get()
            headers = server.get_extra_info("headers")
            assert headers["authorization"] == "Bearer abc"
            assert str(server.get_extra_info("path")).startswith("/mux")
            for session in (client, server):
                assert session.get_extra_info("subprotocol") == "muxado.v2"
            assert client.get_extra_info("headers")["upgrade"]
            assert server.remote_address == client.local_address


@pytest.mark.parametrize("name", ROADS)
async def test_a_web_page_and_another_subprotocol_are_refused(name: str) -> None:
    arrivals = Arrivals()
    async with SERVERS[name](arrivals.handle, Config()) as port:
        url = f"ws://127.0.0.1:{port}/mux"
        with pytest.raises(HandshakeRefused) as refused:
            await connect(url, headers={"Origin": "https://evil.example"})
        assert refused.value.status == 403
        with pytest.raises(InvalidStatus):
            await websockets.asyncio.client.connect(url, subprotocols=[Subprotocol("chat")])
        assert arrivals.sessions.empty()


@pytest.mark.parametrize("name", ROADS)
@pytest.mark.parametrize("wire", ["muxado-v2", "muxado-v1", "yamux", "smux-v1"])
async def test_the_subprotocol_chooses_the_wire_of_a_server_that_takes_any(
    name: str, wire: str
) -> None:
    """The server speaks first, when the client has said nothing by which its wire could be told."""

    async def greet(session: Session) -> None:
        async with session.open() as stream:
            await stream.write(b"hello")
        await session.wait_closed()

    async with SERVERS[name](greet, Config(wire="auto")) as port:
        url = f"ws://127.0.0.1:{port}/mux"
        async with connect(url, config=Config(wire=wire)) as client:
            assert client.get_extra_info("subprotocol") == wire.replace("-", ".")
            async with await client.accept() as stream:
                assert await stream.read() == b"hello"


@pytest.mark.parametrize("name", ROADS)
async def test_bytes_of_another_wire_than_the_subprotocols_end_the_session(name: str) -> None:
    arrivals = Arrivals()
    async with SERVERS[name](arrivals.handle, Config(wire="auto")) as port:
        url = f"ws://127.0.0.1:{port}/mux"
        protocols = [Subprotocol("yamux")]
        async with websockets.asyncio.client.connect(url, subprotocols=protocols) as websocket:
            session = await arrivals.sessions.get()
            await websocket.send(HELLO)  # muxado v2's
            reason = await session.wait_closed()
            assert reason.code == muxado.ErrorCode.PROTOCOL_ERROR
            assert not reason.by_peer


@pytest.mark.parametrize("name", ROADS)
async def test_without_a_subprotocol_the_first_bytes_choose_the_wire(name: str) -> None:
    arrivals = Arrivals()
    async with SERVERS[name](arrivals.handle, Config(wire="auto")) as port:
        url = f"ws://127.0.0.1:{port}/mux"
        async with websockets.asyncio.client.connect(url) as websocket:
            session = await arrivals.sessions.get()
            await websocket.send(HELLO + FIN)
            async with await session.accept() as stream:
                assert await stream.read() == b"hello"


# hypercorn accepts what a client offers, and tells an application no close code.
NOT_HYPERCORN = [name for name in SERVERS if name not in ("uvicorn-websockets", "hypercorn")]


@pytest.mark.parametrize("name", NOT_HYPERCORN)
async def test_compression_is_declined(name: str) -> None:
    arrivals = Arrivals()
    async with SERVERS[name](arrivals.handle, Config()) as port, raw_client(port) as websocket:
        assert websocket.protocol.extensions == []


async def test_an_origin_that_is_listed_is_taken() -> None:
    async with serve(echo, "127.0.0.1", 0, origins=["https://app.example"]) as server:
        url = f"ws://127.0.0.1:{server.addresses[0][1]}/"
        async with connect(url, headers={"Origin": "https://app.example"}) as session:
            assert await ask(session, b"hello") == b"hello"


async def test_a_refusal_has_its_status_and_pause() -> None:
    def refuse(websocket: ServerWebsocket, request: Request) -> Response:
        response = websocket.respond(503, "later")
        response.headers["Retry-After"] = "7"
        return response

    async def never(websocket: ServerWebsocket) -> None: ...

    async with websockets.asyncio.server.serve(
        never, "127.0.0.1", 0, process_request=refuse
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        with pytest.raises(HandshakeRefused) as refused:
            await connect(f"ws://127.0.0.1:{port}/")
    assert (refused.value.status, refused.value.retry_after) == (503, 7.0)


async def test_tls_verifies_the_server(tls: Tls) -> None:
    async with websockets_server(echo, Config(), tls.server) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(f"wss://localhost:{port}/")
        async with connect(f"wss://localhost:{port}/", ssl=tls.client) as session:
            assert session.get_extra_info("peercert")
            assert await ask(session, b"hello") == b"hello"


async def test_a_server_that_says_nothing_is_given_up() -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(wait, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(TimeoutError, match="no session"):
            await connect(f"ws://127.0.0.1:{port}/", timeout=0.2)


async def test_what_is_no_http_is_refused() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH_9\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        with pytest.raises(HandshakeRefused, match="valid HTTP response"):
            await connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")


@pytest.mark.parametrize(
    ("url", "arguments"),
    [
        ("http://host/", {}),
        ("ws://host:99999/?token=secret", {}),
        ("ws:///path?token=secret", {}),
        ("ws://host/", {"ssl": True}),
        ("wss://host/", {"ssl": False}),
        ("ws://host/", {"headers": {"X": "a\r\nb"}}),
        ("ws://host/", {"headers": {"X": 1}}),
        ("ws://host/", {"timeout": 0}),
    ],
)
async def test_bad_arguments_are_told_at_once(url: str, arguments: dict[str, object]) -> None:
    with pytest.raises(muxado.UsageError) as caught:
        connect(url, **arguments)  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)


async def test_tokens_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with websockets_server(echo, Config()) as port:
        url = f"ws://127.0.0.1:{port}/mux?token=secret"
        async with connect(url, headers={"Authorization": "Bearer secret"}) as session:
            assert await ask(session, b"hello") == b"hello"
    assert caplog.records
    assert "secret" not in caplog.text


# Ends


@pytest.mark.parametrize("name", ROADS)
async def test_text_is_an_error_that_says_so(name: str) -> None:
    arrivals = Arrivals()
    async with SERVERS[name](arrivals.handle, Config()) as port, raw_client(port) as websocket:
        session = await arrivals.sessions.get()
        await websocket.send("hello")
        reason = await session.wait_closed()
        assert isinstance(reason.exception, muxado.ProtocolError)
        assert "text message" in str(reason.exception)
        await websocket.wait_closed()
        assert websocket.close_code == 1003


@pytest.mark.parametrize("name", NOT_HYPERCORN)
@pytest.mark.parametrize("code", [1011, 1012, 1013])
async def test_a_code_that_is_no_orderly_end_is_a_loss(name: str, code: int) -> None:
    arrivals = Arrivals()
    async with SERVERS[name](arrivals.handle, Config()) as port, raw_client(port) as websocket:
        session = await arrivals.sessions.get()
        await websocket.close(code)
        lost = (await session.wait_closed()).exception
        assert isinstance(lost, WebSocketLost)
        assert lost.code == code
        assert lost.retry_after == (5.0 if code == 1013 else None)


async def test_a_dialer_waits_as_long_as_the_server_asks_for() -> None:
    async def later(websocket: ServerWebsocket) -> None:
        await websocket.close(1013, "60")

    server = websockets.asyncio.server.serve(
        later, "127.0.0.1", 0, subprotocols=[Subprotocol("muxado.v2")]
    )
    async with server as listening:
        url = f"ws://127.0.0.1:{next(iter(listening.sockets)).getsockname()[1]}/"
        waiting = asyncio.Event()
        loop = asyncio.get_running_loop()
        dialer = muxado.Dialer(
            dial=lambda: connect(url),
            on_change=lambda *_: loop.call_soon(
                lambda: waiting.set() if dialer.state == "waiting" else None
            ),
        )
        async with dialer:
            await waiting.wait()
            assert dialer.state.next_try is not None
            assert dialer.state.next_try - loop.time() > 30


@pytest.mark.parametrize("name", ROADS)
async def test_an_orderly_close_ends_the_session_without_an_error(name: str) -> None:
    arrivals = Arrivals()
    async with SERVERS[name](arrivals.handle, Config()) as port, raw_client(port) as websocket:
        session = await arrivals.sessions.get()
        await websocket.send(bytes.fromhex("0000083000000000 0000000000000000"))
        await websocket.close(1000)
        reason = await session.wait_closed()
        assert (reason.code, reason.by_peer, reason.exception) == (0, True, None)


async def test_an_aborted_session_reaches_the_socket_at_once() -> None:
    """The peer answers no close frame, and its socket ends all the same."""
    arrivals = Arrivals()
    async with websockets_server(arrivals.handle, Config(close_timeout=1000)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GREETING)
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        (await arrivals.sessions.get()).abort()
        said = await reader.read()
        assert said.endswith(b"\x88\x02\x03\xf3")  # a close frame with 1011
        writer.close()


async def test_pings_whose_answers_are_not_read_end_the_session() -> None:
    arrivals = Arrivals()
    async with websockets_server(arrivals.handle, Config()) as port, raw_client(port) as websocket:
        session = await arrivals.sessions.get()
        websocket.transport.pause_reading()
        ping = b"\x89\xfd\0\0\0\0" + bytes(125)
        while not session.closed:
            websocket.transport.write(ping * 1000)
            await asyncio.sleep(0)
        reason = await session.wait_closed()
        assert "pings" in str(reason.exception)
        websocket.transport.abort()


async def test_a_message_may_come_in_fragments_and_empty_ones_mean_nothing() -> None:
    arrivals = Arrivals()
    async with websockets_server(arrivals.handle, Config()) as port, raw_client(port) as websocket:
        session = await arrivals.sessions.get()
        await websocket.send(b"")
        await websocket.send(bytes([each]) for each in HELLO + FIN)
        stream = await session.accept()
        assert await stream.read() == b"hello"


async def test_a_message_that_is_too_long_ends_the_session() -> None:
    arrivals = Arrivals()
    async with websockets_server(arrivals.handle, Config()) as port, raw_client(port) as websocket:
        session = await arrivals.sessions.get()
        await websocket.send(bytes(2 * 1024 * 1024))
        reason = await session.wait_closed()
        assert "WebSocket" in str(reason.exception)


# hypercorn keeps a connection that was cut in its request for as long as a silent one.
@pytest.mark.parametrize("name", NOT_HYPERCORN)
async def test_a_connection_may_be_cut_at_every_byte(name: str) -> None:
    alive: set[Session] = set()
    ended = asyncio.Event()

    async def handle(session: Session) -> None:
        alive.add(session)
        await session.wait_closed()
        alive.discard(session)
        ended.set()

    frames = b"".join(bytes((0x82, 0x80 | len(frame))) + bytes(4) + frame for frame in (HELLO, FIN))
    said = GREETING + frames + b"\x88\x82" + bytes(4) + b"\x03\xe8"
    async with SERVERS[name](handle, Config()) as port:
        for count in range(len(said) + 1):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(said[:count])
            writer.write_eof()
            await reader.read()
            writer.close()
        while alive:
            ended.clear()
            await ended.wait()
