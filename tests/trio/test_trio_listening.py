"""connect, serve and listen under trio: TCP, TLS and Unix sockets."""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import muxado
from muxado import Config, ErrorCode
from muxado.trio import Server, Session, connect, listen, serve
from tests.certificates import Tls

from .test_trio_session import echo, exchange, tasks


async def echo_server(session: Session) -> None:
    await session.serve(echo)


async def test_serve_tells_its_addresses_and_serves_many() -> None:
    before = tasks()
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(serve, echo_server, "127.0.0.1", 0)
        ((host, port),) = server.addresses
        async with connect(host, port) as first, connect(host, port) as second:
            assert await exchange(first, b"1") == b"1"
            assert await exchange(second, b"2") == b"2"
            assert first.remote_address == (host, port)
        nursery.cancel_scope.cancel()
    assert tasks() == before


async def test_serve_with_tls(tls: Tls) -> None:
    async with trio.open_nursery() as nursery:
        start = partial(serve, echo_server, "127.0.0.1", 0, ssl=tls.mutual_server)
        server = await nursery.start(start)
        ((_, port),) = server.addresses
        async with connect("localhost", port, ssl=tls.mutual_client) as session:
            assert await exchange(session, b"secret") == b"secret"
            transport = session.transport
            assert session.get_extra_info("ssl_object") is transport
            assert session.get_extra_info("peercert")
            assert session.remote_address == ("127.0.0.1", port)
        with pytest.raises(ssl.SSLCertVerificationError):
            async with connect("localhost", port, ssl=True):
                raise AssertionError("no session")
        nursery.cancel_scope.cancel()


async def test_serve_on_a_unix_socket(socket_path: str) -> None:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, echo_server, path=socket_path))
        assert server.addresses == [socket_path]
        async with connect(path=socket_path) as session:
            assert await exchange(session, b"local") == b"local"
        nursery.cancel_scope.cancel()


async def test_a_path_can_be_listened_on_again(socket_path: str) -> None:
    for _ in range(2):
        async with listen(path=socket_path) as listener, connect(path=socket_path) as client:
            assert await client.ping() > 0
            assert not (await listener.accept()).closed


@pytest.fixture
def precious(socket_path: str) -> Iterator[Path]:
    """A file that must not change."""
    place = Path(socket_path)
    place.write_text("precious")
    yield place
    assert place.read_text() == "precious"


async def test_what_is_no_socket_is_left_where_it_is(precious: Path) -> None:
    with pytest.raises(OSError, match="in use"):
        async with listen(path=precious):
            raise AssertionError("no listener")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has abstract names")
async def test_an_abstract_name_can_be_listened_on() -> None:
    name = f"\0muxado-{os.getpid()}"
    async with listen(path=name), connect(path=name) as client:
        assert await client.ping() > 0


async def test_a_handler_that_raises_aborts_its_session(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(session: Session) -> None:
        raise ZeroDivisionError("on purpose")

    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, fail, "127.0.0.1", 0)
        ((_, port),) = server.addresses
        async with connect("127.0.0.1", port) as session:
            await session.wait_closed()
            assert session.close_reason is not None
            assert session.close_reason.code == ErrorCode.INTERNAL_ERROR
        nursery.cancel_scope.cancel()
    (record,) = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
    assert "ZeroDivisionError: on purpose" in caplog.text
    assert "handler of <Session server" in record.getMessage()


async def test_listen_hands_out_sessions_until_it_is_closed() -> None:
    async with listen("127.0.0.1", 0) as listener:
        ((_, port),) = listener.addresses
        async with connect("127.0.0.1", port) as client:
            session = await listener.accept()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.serve, echo)
                assert await exchange(client, b"x") == b"x"
                await listener.aclose()
                assert await exchange(client, b"the session goes on") == b"the session goes on"
                nursery.cancel_scope.cancel()
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()
        assert [session async for session in listener] == []
        with pytest.raises(OSError, match=r".*"):
            await trio.open_tcp_stream("127.0.0.1", port)


async def test_closing_a_listener_ends_sessions_that_were_not_accepted() -> None:
    async with listen("127.0.0.1", 0) as listener:
        ((_, port),) = listener.addresses
        async with connect("127.0.0.1", port) as client:
            await client.ping()  # the session is there, and waits
            await listener.aclose()
            await client.wait_closed()
            assert client.close_reason is not None
            assert client.close_reason.by_peer


async def test_leaving_a_listener_closes_its_sessions_in_order() -> None:
    async with trio.open_nursery() as nursery:

        async def serve_one(task_status: trio.TaskStatus[int]) -> None:
            async with listen("127.0.0.1", 0) as listener:
                task_status.started(listener.addresses[0][1])
                session = await listener.accept()
                stream = await session.accept()
                await stream.send_all(bytes(100_000))
                await stream.aclose()

        port = await nursery.start(serve_one)
        async with connect("127.0.0.1", port) as client, client.open(eager=True) as stream:
            assert await stream.readexactly(100_000) == bytes(100_000)
            assert await stream.receive_some() == b""
            await client.wait_closed()
            assert client.close_reason is not None
            assert client.close_reason.clean


async def test_a_session_belongs_to_its_listener_as_soon_as_it_is_accepted() -> None:
    async def accept_one(task_status: trio.TaskStatus[int]) -> None:
        async with listen("127.0.0.1", 0) as listener:
            task_status.started(listener.addresses[0][1])
            session = await listener.accept()
            stream = session.open(eager=True)
        assert stream.is_closing()

    async with trio.open_nursery() as nursery:
        for _ in range(20):  # for trio's tasks run in any order
            port = await nursery.start(accept_one)
            async with connect("127.0.0.1", port) as client, await client.accept() as stream:
                assert stream.id == 2


async def test_a_listener_lets_exceptions_out_bare() -> None:
    async def fail() -> None:
        async with listen("127.0.0.1", 0) as listener:
            ((_, port),) = listener.addresses
            async with connect("127.0.0.1", port):
                await listener.accept()
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()


async def test_leaving_a_listener_by_an_exception_does_not_wait() -> None:
    async def fail(silent: socket.socket) -> None:
        config = Config(close_timeout=1000)
        async with listen("127.0.0.1", 0, config=config) as listener:
            silent.connect(listener.addresses[0])
            await listener.accept()
            raise ZeroDivisionError

    with socket.socket() as silent, pytest.raises(ZeroDivisionError):
        await fail(silent)


async def test_listening_on_a_socket_of_ones_own() -> None:
    sock = trio.socket.socket()
    await sock.bind(("127.0.0.1", 0))
    async with listen(sock=sock) as listener:
        ((_, port),) = listener.addresses
        near = trio.socket.socket()
        await near.connect(("127.0.0.1", port))
        async with connect(sock=near) as client, trio.open_nursery() as nursery:
            session = await listener.accept()
            nursery.start_soon(session.serve, echo)
            assert await exchange(client, b"mine") == b"mine"
            nursery.cancel_scope.cancel()


def ipv6_works() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not ipv6_works(), reason="there is no IPv6 here")
async def test_listening_on_every_address_of_the_machine() -> None:
    async with listen(port=0) as listener:
        places = {len(address): address[1] for address in listener.addresses}
        for host, port in (("127.0.0.1", places[2]), ("::1", places[4])):
            async with connect(host, port) as client, client.open(eager=True) as stream:
                session = await listener.accept()
                async with await session.accept() as other:
                    await other.send_all(b"x")
                    assert await stream.receive_some() == b"x"
        sockets = listener.sockets
        await listener.aclose()
        assert [sock.fileno() for sock in sockets] == [-1, -1]
        assert listener.addresses == []


async def bound() -> trio.socket.SocketType:
    sock = trio.socket.socket()
    await sock.bind(("127.0.0.1", 0))
    return sock


async def unlucky(code: int) -> trio.socket.SocketType:
    """Return a listening socket whose `accept` fails first, as the system's may."""
    sock = await bound()
    accept = sock.accept
    failures = [OSError(code, os.strerror(code))]

    async def fail_first() -> tuple[trio.socket.SocketType, Any]:
        if failures:
            raise failures.pop()
        return await accept()

    sock.accept = fail_first  # type: ignore[method-assign]
    return sock


@pytest.mark.parametrize("code", [errno.EPROTO, errno.EPERM, errno.EMFILE])
async def test_an_error_of_one_connection_does_not_end_a_server(code: int) -> None:
    sock = await unlucky(code)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, echo_server, sock=sock))
        async with connect(*server.addresses[0]) as session:
            assert await exchange(session, b"next") == b"next"
        nursery.cancel_scope.cancel()


async def test_a_listening_socket_that_is_no_good_ends_a_server() -> None:
    sock = await unlucky(errno.EBADF)
    with pytest.raises(ExceptionGroup) as caught:
        await serve(echo_server, sock=sock)
    (failure,) = caught.value.exceptions
    assert isinstance(failure, OSError)
    assert failure.errno == errno.EBADF


async def test_a_place_is_named_in_exactly_one_way() -> None:
    wrongs: list[dict[str, Any]] = [{}, {"host": "x"}, {"host": "x", "port": 1, "path": "y"}]
    for wrong in wrongs:
        for call in (connect, listen):
            with pytest.raises(muxado.UsageError):
                call(**wrong)
        with pytest.raises(muxado.UsageError):
            await serve(echo_server, **wrong)
    with pytest.raises(muxado.UsageError, match="server_hostname"):
        connect(path="x", ssl=True)


async def test_dialling_a_closed_port_fails_as_trio_does() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with pytest.raises(OSError, match=r".*"):
        async with connect("127.0.0.1", port):
            raise AssertionError("no session")


async def test_dialling_can_be_cancelled_in_the_handshake(tls: Tls) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with trio.move_on_after(0.02) as scope:
            async with connect(*silent.getsockname(), ssl=tls.client):
                raise AssertionError("no session")
        assert scope.cancelled_caught


async def test_a_server_that_hangs_up_in_the_handshake(tls: Tls) -> None:
    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, hang_up, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            async with connect("localhost", port, ssl=tls.client):
                raise AssertionError("no session")
        nursery.cancel_scope.cancel()


async def test_a_block_that_is_not_entered_says_so() -> None:
    calls: list[Callable[[], Any]] = [lambda: connect("127.0.0.1", 1), lambda: listen(port=0)]
    for call in calls:
        pending = call()
        with pytest.raises(AttributeError, match="use 'async with'"):
            _ = pending.open
        with pytest.warns(Warning, match="entered"):
            del pending
