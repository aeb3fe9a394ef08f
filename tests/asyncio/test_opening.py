"""Dialling, listening, and taking over what is open already."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import muxado
from muxado import Listener, Server, Session
from muxado.endpoint import MOST_PENDING

from ..certificates import ALPN, Tls
from ..helpers import cancel, echo, exchange, running
from ..transports import connected_pairs, piped_pairs

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_tasks_left")]

LOCAL = "127.0.0.1"
CHILD = str(Path(__file__).with_name("child.py"))


async def serve_echo(session: Session) -> None:
    await session.serve(echo)


async def check(session: Session) -> None:
    """See that a session's peer echoes."""
    async with session.open() as stream:
        assert await exchange(stream, b"hello") == b"hello"


def chosen_protocol(session: Session) -> str | None:
    """Return what ALPN has chosen for a session."""
    connection: Any = session.get_extra_info("ssl_object")
    chosen: str | None = connection.selected_alpn_protocol()
    return chosen


async def unheard(session: Session) -> None:
    pytest.fail("no session was to come of this")


# The ways to open


async def test_connect_and_serve_can_be_entered() -> None:
    async with muxado.serve(serve_echo, LOCAL, 0) as server:
        host, port = server.addresses[0]
        async with muxado.connect(host, port) as session:
            assert isinstance(server, Server)
            assert isinstance(session, Session)
            await check(session)
        assert session.closed
    assert server.sockets == ()


async def test_connect_and_serve_can_be_awaited() -> None:
    server = await muxado.serve(serve_echo, LOCAL, 0)
    session = await muxado.connect(*server.addresses[0])
    await check(session)
    session.close()
    await session.wait_closed()
    server.close()
    await server.wait_closed()


async def test_listen_can_be_entered_and_awaited() -> None:
    async with muxado.listen(LOCAL, 0) as entered:
        assert isinstance(entered, Listener)
    awaited = await muxado.listen(LOCAL, 0)
    assert len(awaited.sockets) == len(awaited.addresses) == 1
    awaited.close()
    awaited.close()
    await awaited.wait_closed()
    assert awaited.addresses == []


async def test_leaving_a_connection_by_an_exception_aborts_it() -> None:
    async with muxado.listen(LOCAL, 0) as listener:
        with pytest.raises(ZeroDivisionError):
            async with muxado.connect(*listener.addresses[0]):
                raise ZeroDivisionError
        session = await listener.accept()
        await session.wait_closed()
        assert session.close_reason is not None
        assert session.close_reason.code == muxado.ErrorCode.INTERNAL_ERROR


async def test_a_unix_socket_by_its_path(socket_path: str) -> None:
    async with muxado.serve(serve_echo, path=Path(socket_path)) as server:
        assert server.addresses == [socket_path]
        async with muxado.connect(path=Path(socket_path)) as session:
            await check(session)


async def test_sockets_that_are_there_already(socket_path: str) -> None:
    for family, place in ((socket.AF_INET, (LOCAL, 0)), (socket.AF_UNIX, socket_path)):
        listening = socket.socket(family)
        listening.bind(place)
        dialled = socket.socket(family)
        async with muxado.serve(serve_echo, sock=listening) as server:
            dialled.connect(server.addresses[0])
            async with muxado.connect(sock=dialled) as session:
                await check(session)


async def test_a_socket_pair() -> None:
    near, far = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=far)
    async with (
        muxado.connect(sock=near) as client,
        muxado.server(reader, writer) as server,
        running(serve_echo(server)),
    ):
        await check(client)


@pytest.mark.parametrize(
    "place",
    [
        {},
        {"host": LOCAL, "port": 1, "path": "x"},
        {"port": 1, "path": "x"},
        {"host": LOCAL},
        {"host": LOCAL, "port": 1, "sock": "s"},
        {"path": "x", "sock": "s"},
    ],
    ids=lambda place: "+".join(place) or "nothing",
)
async def test_a_place_is_named_in_one_way(place: dict[str, Any]) -> None:
    sock = socket.socket()
    with sock:
        if "sock" in place:
            place = place | {"sock": sock}
        for opening in (muxado.connect, muxado.listen):
            with pytest.raises(muxado.UsageError):
                await opening(**place)
        with pytest.raises(muxado.UsageError):
            await muxado.serve(unheard, **place)


async def test_a_server_of_tls_needs_a_certificate() -> None:
    with pytest.raises(muxado.UsageError, match="certificate"):
        await muxado.serve(unheard, LOCAL, 0, ssl=True)  # type: ignore[arg-type]


async def test_further_arguments_go_to_the_loop() -> None:
    async with (
        muxado.listen(LOCAL, 0, backlog=7, start_serving=True) as listener,
        muxado.connect(*listener.addresses[0], local_addr=(LOCAL, 0)),
        await listener.accept(),
    ):
        pass
    with pytest.raises(TypeError):
        await muxado.listen(LOCAL, 0, no_such_argument=1)


async def test_a_place_without_a_listener_is_refused(socket_path: str) -> None:
    with socket.socket() as unused:
        unused.bind((LOCAL, 0))
        with pytest.raises(ConnectionRefusedError):
            await muxado.connect(*unused.getsockname())
    with pytest.raises(FileNotFoundError):
        await muxado.connect(path=socket_path)


async def test_a_cancelled_connect_closes_what_it_opened(tls: Tls) -> None:
    with socket.create_server((LOCAL, 0)) as silent:
        silent.setblocking(False)
        loop = asyncio.get_running_loop()
        dialling = muxado.connect(*silent.getsockname(), ssl=tls.client)
        async with running(session_of(dialling)) as connecting:
            connection, _ = await loop.sock_accept(silent)
            with connection:
                assert await loop.sock_recv(connection, 1) == b"\x16"
                await cancel(connecting)
                while await loop.sock_recv(connection, 10_000):
                    pass


async def session_of(opening: Any) -> Session:
    session: Session = await opening
    return session


# What a session says of its connection


async def test_addresses_and_extra_information() -> None:
    async with (
        muxado.listen(LOCAL, 0) as listener,
        muxado.connect(*listener.addresses[0]) as client,
        await listener.accept() as server,
    ):
        assert client.remote_address == listener.addresses[0]
        assert client.local_address == server.remote_address
        assert client.remote_address == server.local_address
        sock: Any = client.get_extra_info("socket")
        assert sock.getpeername() == client.remote_address
        assert client.get_extra_info("nothing") is None
        assert client.get_extra_info("nothing", 5) == 5
        async with client.open() as stream:
            assert stream.session is client
            assert stream.get_extra_info("peername") == client.remote_address
            assert stream.get_extra_info("sockname") == client.local_address
            assert stream.get_extra_info("socket") is None
            assert stream.get_extra_info("socket", 5) is None
            assert stream.get_extra_info("nothing", 5) == 5


async def test_tls_information_is_the_streams_too(tls: Tls) -> None:
    async with muxado.listen(LOCAL, 0, ssl=tls.mutual_server) as listener:
        dialling = muxado.connect(*listener.addresses[0], ssl=tls.mutual_client)
        async with dialling as client, await listener.accept() as server, client.open() as stream:
            for name in ("ssl_object", "peercert", "cipher"):
                assert stream.get_extra_info(name)
                assert stream.get_extra_info(name) == client.get_extra_info(name)
            certificate: Any = server.get_extra_info("peercert")
            assert certificate["subjectAltName"] == (("email", "client@example.org"),)


# TLS


async def test_tls_is_verified(tls: Tls, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "muxado")
    async with muxado.serve(serve_echo, LOCAL, 0, ssl=tls.server) as server:
        host, port = server.addresses[0]
        with pytest.raises(ssl.SSLCertVerificationError):
            await muxado.connect(host, port, ssl=True)
        with pytest.raises(ssl.SSLCertVerificationError, match=r"example\.org"):
            await muxado.connect(host, port, ssl=tls.client, server_hostname="example.org")
        async with muxado.connect(host, port, ssl=tls.client) as session:
            await check(session)
        async with muxado.connect("localhost", port, ssl=tls.client) as session:
            await check(session)


async def test_a_client_without_a_certificate_is_turned_away(tls: Tls) -> None:
    async with muxado.serve(serve_echo, LOCAL, 0, ssl=tls.mutual_server) as server:
        # With TLS 1.3 the client hears of it only after its own handshake.
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with muxado.connect(*server.addresses[0], ssl=tls.client) as session:
                await session.ping()
        async with muxado.connect(*server.addresses[0], ssl=tls.mutual_client) as session:
            await check(session)
        assert len(server.sessions) <= 1


async def test_tls_without_a_host_needs_a_name(tls: Tls, socket_path: str) -> None:
    with pytest.raises(muxado.UsageError, match="server_hostname"):
        muxado.connect(path=socket_path, ssl=tls.client)
    with socket.socket() as sock, pytest.raises(muxado.UsageError, match="server_hostname"):
        muxado.connect(sock=sock, ssl=tls.client)
    with pytest.raises(muxado.UsageError, match="server_hostname"):
        muxado.connect(LOCAL, 1, server_hostname="localhost")
    unchecked = tls.new_client()
    unchecked.check_hostname = False
    async with muxado.serve(serve_echo, path=socket_path, ssl=tls.server):
        for options in ({"ssl": tls.client, "server_hostname": "localhost"}, {"ssl": unchecked}):
            async with muxado.connect(path=socket_path, **options) as session:
                assert session.get_extra_info("peercert")
                await check(session)


async def test_alpn_is_offered_by_ssl_true(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    async with muxado.serve(serve_echo, LOCAL, 0, ssl=tls.new_server("h2", ALPN)) as server:
        with tls.authority.cert_pem.tempfile() as trusted:
            monkeypatch.setenv("SSL_CERT_FILE", trusted)
            dialling = muxado.connect(*server.addresses[0], ssl=True)
        async with dialling as session:
            assert chosen_protocol(session) == ALPN
            await check(session)


@pytest.mark.parametrize(
    ("offered", "known"), [((ALPN,), ()), ((), (ALPN,)), ((), ()), ((ALPN,), ("h2",))], ids=repr
)
async def test_a_server_may_choose_no_protocol(
    tls: Tls, offered: tuple[str, ...], known: tuple[str, ...]
) -> None:
    async with muxado.serve(serve_echo, LOCAL, 0, ssl=tls.new_server(*known)) as server:
        context = tls.new_client(*offered)
        async with muxado.connect(*server.addresses[0], ssl=context) as session:
            assert chosen_protocol(session) is None
            await check(session)


async def test_a_server_must_not_choose_another_protocol(tls: Tls) -> None:
    async with muxado.serve(serve_echo, LOCAL, 0, ssl=tls.new_server("h2")) as server:
        context = tls.new_client("h2", ALPN)
        with pytest.raises(muxado.ProtocolError, match="'h2'"):
            await muxado.connect(*server.addresses[0], ssl=context)


async def test_a_refusal_of_alpn_names_the_cause(tls: Tls) -> None:
    with socket.create_server((LOCAL, 0)) as listening:
        listening.setblocking(False)
        loop = asyncio.get_running_loop()
        dialling = muxado.connect(*listening.getsockname(), ssl=tls.new_client(ALPN))
        async with running(session_of(dialling)) as connecting:
            connection, _ = await loop.sock_accept(listening)
            with connection:
                # A fatal alert, no_application_protocol.
                await loop.sock_sendall(connection, bytes.fromhex("15 0303 0002 02 78"))
                with pytest.raises(ssl.SSLError) as caught:
                    await connecting
        assert any(ALPN in note for note in caught.value.__notes__)


async def test_a_context_is_left_as_it_was(tls: Tls) -> None:
    context = tls.new_client()
    async with (
        muxado.serve(serve_echo, LOCAL, 0, ssl=tls.new_server(ALPN)) as server,
        muxado.connect(*server.addresses[0], ssl=context) as session,
    ):
        # It offers nothing, so nothing was chosen.
        assert chosen_protocol(session) is None
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED


# What goes wrong with one connection is that one's affair


async def test_a_plain_client_of_a_tls_server(tls: Tls, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "muxado")
    async with muxado.serve(serve_echo, LOCAL, 0, ssl=tls.server) as server:
        async with muxado.connect(*server.addresses[0]) as plain, plain.open() as stream:
            with pytest.raises(muxado.SessionError):
                await exchange(stream, b"hello")
        async with muxado.connect(*server.addresses[0], ssl=tls.client) as session:
            await check(session)
    assert "WRONG_VERSION_NUMBER" in caplog.text


async def test_a_plain_client_hears_that_the_server_speaks_tls() -> None:
    alert = bytes.fromhex("15 0301 0002 02 46")  # protocol_version, and nothing more
    async with (
        hanging_up_after(alert) as address,
        muxado.connect(*address) as session,
        session.open() as stream,
    ):
        with pytest.raises(muxado.ProtocolError, match="the peer speaks TLS: pass ssl="):
            await exchange(stream, b"hello")


async def test_a_tls_client_of_a_plain_server(tls: Tls) -> None:
    async with muxado.listen(LOCAL, 0) as listener:
        with pytest.raises(ConnectionResetError) as caught:
            await muxado.connect(*listener.addresses[0], ssl=tls.client)
        assert any("TLS" in note for note in caught.value.__notes__)
        async with await listener.accept() as session:
            with pytest.raises(muxado.ProtocolError, match="the peer speaks TLS: pass ssl="):
                await session.accept()
        async with muxado.connect(*listener.addresses[0]), await listener.accept() as session:
            assert await session.ping() > 0


async def test_a_tls_client_of_an_http_server(tls: Tls) -> None:
    async with hanging_up_after(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        with pytest.raises(ssl.SSLError) as caught:
            await muxado.connect(*address, ssl=tls.client)
        assert any("does not speak TLS" in note for note in caught.value.__notes__)


@asynccontextmanager
async def hanging_up_after(answer: bytes) -> AsyncIterator[Any]:
    """Listen, answer whatever comes, and close."""

    async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        with contextlib.suppress(ConnectionError):
            writer.write_eof()
            while await reader.read(1000):
                pass
            writer.close()
            await writer.wait_closed()
        done.set()

    done = asyncio.Event()
    server = await asyncio.start_server(answer_all, LOCAL, 0)
    async with server:
        yield server.sockets[0].getsockname()
        await done.wait()


async def test_a_silent_client_is_given_up_and_does_not_delay_others(
    tls: Tls, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "muxado")
    loop = asyncio.get_running_loop()
    options: dict[str, Any] = {"ssl": tls.server, "ssl_handshake_timeout": 0.2}
    async with muxado.serve(serve_echo, LOCAL, 0, **options) as server:
        with socket.create_connection(server.addresses[0]) as silent:
            silent.setblocking(False)
            async with muxado.connect(*server.addresses[0], ssl=tls.client) as session:
                await check(session)
            assert await loop.sock_recv(silent, 1) == b""
    assert "TimeoutError" in caplog.text


async def test_a_client_that_vanishes_in_its_handshake_does_not_affect_others(tls: Tls) -> None:
    async with muxado.serve(serve_echo, LOCAL, 0, ssl=tls.server) as server:
        for beginning in (b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01"):
            with socket.create_connection(server.addresses[0]) as vanishing:
                vanishing.sendall(beginning)
        async with muxado.connect(*server.addresses[0], ssl=tls.client) as session:
            await check(session)


async def test_failed_handshakes_use_nothing_up(tls: Tls) -> None:
    async with muxado.serve(serve_echo, LOCAL, 0, ssl=tls.server) as server:
        for _ in range(MOST_PENDING + 1):
            with socket.create_connection(server.addresses[0]) as failing:
                failing.sendall(b"plain text")
            async with muxado.connect(*server.addresses[0], ssl=tls.client) as session:
                await check(session)


# Listener


async def test_accept_gives_sessions_in_the_order_they_came() -> None:
    async with muxado.listen(LOCAL, 0) as listener:
        near = [await muxado.connect(*listener.addresses[0]) for _ in range(3)]
        far = [await listener.accept() for _ in range(3)]
        assert [end.remote_address for end in far] == [end.local_address for end in near]
        for session in near + far:
            session.close()
        for session in near + far:
            await session.wait_closed()


async def test_iteration_over_a_listener_ends_when_it_is_closed() -> None:
    async with muxado.listen(LOCAL, 0) as listener:
        async with muxado.connect(*listener.addresses[0]):
            async for session in listener:
                listener.close()
                await session.ping()  # outlives the listener
                session.close()
                await session.wait_closed()
        with pytest.raises(muxado.SessionClosed):
            await listener.accept()


async def test_closing_a_listener_wakes_all_who_wait() -> None:
    async with (
        muxado.listen(LOCAL, 0) as listener,
        running(listener.accept()) as first,
        running(anext(listener)) as second,
        muxado.connect(*listener.addresses[0]) as session,
        await first,
    ):
        assert not second.done()
        listener.close()
        with pytest.raises(StopAsyncIteration):
            await as_result(second)
        assert not session.closed


async def as_result(task: asyncio.Task[Any]) -> object:
    """Wait for a task; `StopAsyncIteration` can't be raised into a coroutine by `await`."""
    await asyncio.wait([task])
    return task.result()


async def test_a_cancelled_accept_loses_no_session() -> None:
    async with (
        muxado.listen(LOCAL, 0) as listener,
        running(listener.accept()) as first,
        running(listener.accept()) as second,
    ):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await listener.accept()
        await cancel(first)
        async with muxado.connect(*listener.addresses[0]), await second as session:
            assert not session.closed


async def test_sessions_that_were_not_accepted_end_with_the_listener() -> None:
    async with muxado.listen(LOCAL, 0) as listener:
        accepted = await muxado.connect(*listener.addresses[0])
        async with accepted, await listener.accept():
            left = await muxado.connect(*listener.addresses[0])
            await left.ping()
            listener.close()
            await listener.wait_closed()
            await left.wait_closed()
            assert not accepted.closed


async def test_closing_a_listener_ends_the_handshakes_under_way(tls: Tls) -> None:
    loop = asyncio.get_running_loop()
    listener = await muxado.listen(LOCAL, 0, ssl=tls.server)
    address = listener.addresses[0]
    with socket.create_connection(address) as silent, socket.create_connection(address) as begun:
        begun.setblocking(False)
        silent.setblocking(False)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        hello = tls.client.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            hello.do_handshake()
        await loop.sock_sendall(begun, outgoing.read())
        assert await loop.sock_recv(begun, 1) == b"\x16"
        # This client is done as soon as it has heard the server, which may not be done yet.
        session = await muxado.connect(*address, ssl=tls.client)
        listener.close()
        await listener.wait_closed()
        await session.wait_closed()
        for client in (silent, begun):
            with contextlib.suppress(ConnectionResetError):
                while await loop.sock_recv(client, 10_000):
                    pass


# Server


async def test_a_handler_that_returns_closes_its_session() -> None:
    async def handle(session: Session) -> None:
        await session.ping()

    async with (
        muxado.serve(handle, LOCAL, 0) as server,
        muxado.connect(*server.addresses[0]) as session,
    ):
        assert [stream async for stream in session] == []


async def test_a_handler_that_raises_aborts_its_session_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handle(session: Session) -> None:
        async for stream in session:
            async with stream:
                if await stream.readline() == b"fail\n":
                    raise ZeroDivisionError("on request")
                await stream.write(b"fine")

    async with muxado.serve(handle, LOCAL, 0) as server:
        good = await muxado.connect(*server.addresses[0])
        bad = await muxado.connect(*server.addresses[0])
        async with good, bad, bad.open() as failing:
            await failing.write(b"fail\n")
            await bad.wait_closed()
            assert bad.close_reason is not None
            assert bad.close_reason.code == muxado.ErrorCode.INTERNAL_ERROR
            async with good.open() as stream:
                assert await exchange(stream, b"go on\n") == b"fine"
            assert server.sessions != []
    (record,) = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
    assert record.name == "muxado"
    assert "ZeroDivisionError: on request" in caplog.text


async def test_a_server_knows_its_sessions() -> None:
    async with muxado.serve(serve_echo, LOCAL, 0) as server:
        assert server.sessions == []
        async with muxado.connect(*server.addresses[0]) as first:
            await first.ping()
            (far,) = server.sessions
            assert far.remote_address == first.local_address
            async with muxado.connect(*server.addresses[0]) as second:
                await second.ping()
                assert len(server.sessions) == 2
        await far.wait_closed()
        assert far not in server.sessions


async def test_closing_a_server_closes_its_sessions_in_order() -> None:
    server = await muxado.serve(serve_echo, LOCAL, 0)
    async with muxado.connect(*server.addresses[0]) as session:
        await check(session)
        async with running(server.wait_closed()) as waiting:
            await session.ping()
            assert not waiting.done()
            server.close()
            server.close()
            await waiting
        await session.wait_closed()
        assert session.close_reason is not None
        assert session.close_reason.clean
        assert server.sessions == []
        with pytest.raises(ConnectionError):
            await muxado.connect(*session.remote_address)


async def test_a_server_left_by_an_exception_cancels_its_handlers() -> None:
    ends = []

    async def handle(session: Session) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    async def serve_and_fail() -> None:
        async with muxado.serve(handle, LOCAL, 0) as server:
            sessions.append(await muxado.connect(*server.addresses[0]))
            await sessions[0].ping()
            raise ZeroDivisionError

    sessions: list[Session] = []
    with pytest.raises(ZeroDivisionError):
        await serve_and_fail()
    await sessions[0].wait_closed()
    assert ends == ["cancelled"]


async def test_a_handler_that_ignores_the_end_is_cancelled_in_time() -> None:
    async def handle(session: Session) -> None:
        await asyncio.get_running_loop().create_future()

    config = muxado.Config(close_timeout=0.1)
    async with muxado.serve(handle, LOCAL, 0, config=config) as server:
        session = await muxado.connect(*server.addresses[0])
        await session.ping()
    await session.wait_closed()


async def test_shutdown_lets_streams_come_to_their_end() -> None:
    server = await muxado.serve(serve_echo, LOCAL, 0)
    async with muxado.connect(*server.addresses[0]) as session, session.open() as stream:
        await stream.write(b"before ")
        assert await stream.readexactly(7) == b"before "
        async with running(server.shutdown()) as ending:
            while not session.draining:
                await session.ping()
            with pytest.raises(muxado.PeerGone):
                session.open()
            assert await exchange(stream, b"after") == b"after"
            stream.close()
            await ending
    assert server.sessions == []


async def test_shutdown_aborts_when_its_time_is_up() -> None:
    server = await muxado.serve(serve_echo, LOCAL, 0)
    async with muxado.connect(*server.addresses[0]) as session, session.open() as stream:
        await stream.write(b"x")
        assert await stream.read(1) == b"x"
        await server.shutdown(0.05)
        with pytest.raises(muxado.SessionError):
            await stream.read(1)


async def test_serve_forever_lasts_until_the_server_is_closed() -> None:
    server = await muxado.serve(serve_echo, LOCAL, 0)
    async with (
        running(server.serve_forever()) as serving,
        muxado.connect(*server.addresses[0]) as session,
    ):
        await check(session)
        assert not serving.done()
        server.close()
        await serving


async def test_a_cancelled_serve_forever_closes_the_server() -> None:
    server = await muxado.serve(serve_echo, LOCAL, 0)
    async with (
        running(server.serve_forever()) as serving,
        muxado.connect(*server.addresses[0]) as session,
    ):
        await check(session)
        await cancel(serving)
        assert server.sockets == ()
        assert server.sessions == []
        await session.wait_closed()


# Over what is open already


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_pair_of_streams_is_taken_over(tls: Tls, secure: bool) -> None:
    contexts = (tls.server, tls.client) if secure else (None, None)
    async with connected_pairs(*contexts) as (near, far):
        # What the peer sent early waits in asyncio's reader, and must not be lost.
        near[1].write(b"CONNECT\n")
        client = muxado.client(*near)
        async with client, client.open() as stream:
            await stream.write(b"x" * 100_000)
            assert await far[0].readline() == b"CONNECT\n"
            with pytest.raises(asyncio.LimitOverrunError):
                await far[0].readuntil(b"not there")
            async with muxado.server(*far) as server, await server.accept() as other:
                await other.write(b"y")
                assert await other.readexactly(100_000) == b"x" * 100_000
                assert await stream.read(1) == b"y"
                assert (server.get_extra_info("ssl_object") is not None) is secure


async def test_a_pair_may_be_forgotten_once_it_is_taken_over() -> None:
    async def take_over() -> tuple[Session, Session]:
        arrived: asyncio.Queue[Session] = asyncio.Queue()
        listener = await asyncio.start_server(
            lambda reader, writer: arrived.put_nowait(muxado.server(reader, writer)), LOCAL, 0
        )
        address = listener.sockets[0].getsockname()
        client = muxado.client(*await asyncio.open_connection(*address))
        server = await arrived.get()
        listener.close()
        return client, server

    client, server = await take_over()
    async with client, server, running(serve_echo(server)):
        await check(client)


async def test_a_pair_whose_peer_has_finished_gives_a_session_that_ends() -> None:
    async with connected_pairs() as (near, far):
        far[1].close()
        await far[1].wait_closed()
        while not near[0].at_eof():
            await near[0].read(1)
        async with muxado.client(*near) as session:
            with pytest.raises(muxado.SessionClosed):
                await session.accept()


async def test_a_pair_that_is_closed_already_gives_a_session_that_ends() -> None:
    async with connected_pairs() as (near, far):
        for reader, writer in (near, far):
            writer.close()
            await writer.wait_closed()
            session = muxado.client(reader, writer)
            await session.wait_closed()
            with pytest.raises(muxado.SessionError):
                session.open()


async def test_the_front_end_needs_a_running_loop() -> None:
    async with piped_pairs() as (near, _):
        with pytest.raises(RuntimeError, match="running"):
            await asyncio.to_thread(muxado.client, *near)


class Half:
    """The least that can be pumped: no `wait_closed`, no transport, nothing else."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.left = b""

    async def read(self, n: int, /) -> bytes:
        self.left = self.left or await self.queue.get()
        data, self.left = self.left[:n], self.left[n:]
        return data

    def write(self, data: bytes, /) -> None:
        self.queue.put_nowait(data)

    async def drain(self) -> None:
        pass

    def close(self) -> None:
        self.queue.put_nowait(b"")


async def test_any_reader_and_writer_will_do() -> None:
    there, back = Half(), Half()
    async with muxado.client(back, there) as client, muxado.server(there, back) as server:
        assert client.remote_address is None
        async with running(serve_echo(server)), client.open() as stream:
            data = b"x" * 1_000_000
            async with running(stream.write(data)):
                assert await stream.readexactly(len(data)) == data


@pytest.mark.parametrize("lines", [b"hello", b"x" * 1_000_000], ids=["short", "long"])
async def test_a_subprocess_is_a_peer(lines: bytes) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, CHILD, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    async with (
        muxado.client(process.stdout, process.stdin) as session,
        session.open() as stream,
        running(stream.write(lines)),
    ):
        assert await stream.readexactly(len(lines)) == lines
    assert await process.wait() == 0
