"""Dialling through proxies that are reached by TLS: real ones, in every front end."""

from __future__ import annotations

import asyncio
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import uvloop

import muxado
import muxado.carriers.websockets
import muxado.carriers.websockets.sync
import muxado.carriers.websockets.trio
import muxado.sync
import muxado.trio
from muxado import ProxyRefused
from tests.certificates import Tls
from tests.patience import patience
from tests.servers import PASSWORD, tinyproxy_by_tls

from .scripted import scripted

BY_TLS = "https://localhost"  # as the certificate has it

PIECES = 40
PIECE = bytes(range(256)) * 100  # more than a TLS record, in all more than sockets hold


async def shout(stream: muxado.Stream) -> None:
    while data := await stream.read(65536):
        await stream.write(data.upper())


async def talk(session: muxado.Session) -> dict[str, Any]:
    async with session.open() as stream, asyncio.TaskGroup() as group:
        group.create_task(send_all(stream))
        assert await stream.read() == PIECE.upper() * PIECES
    info = {name: session.get_extra_info(name) for name in ("peername", "peercert")}
    return {"tls": info["peercert"] is not None} | info


async def send_all(stream: muxado.Stream) -> None:
    for _ in range(PIECES):
        await stream.write(PIECE)
    stream.write_eof()


def on_loop(factory: Any, connect: Any, *args: Any, **kwds: Any) -> dict[str, Any]:
    async def main() -> dict[str, Any]:
        async with asyncio.timeout(patience(30)):
            async with connect(*args, **kwds) as session:
                return await talk(session)

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


def over_asyncio(*args: Any, **kwds: Any) -> dict[str, Any]:
    return on_loop(None, muxado.connect, *args, **kwds)


def over_uvloop(*args: Any, **kwds: Any) -> dict[str, Any]:
    return on_loop(uvloop.new_event_loop, muxado.connect, *args, **kwds)


def websocket_over_asyncio(*args: Any, **kwds: Any) -> dict[str, Any]:
    return on_loop(None, muxado.carriers.websockets.connect, url(*args, **kwds), **kwds)


def websocket_over_uvloop(*args: Any, **kwds: Any) -> dict[str, Any]:
    connect = muxado.carriers.websockets.connect
    return on_loop(uvloop.new_event_loop, connect, url(*args, **kwds), **kwds)


def url(host: str, port: int, **kwds: Any) -> str:
    scheme = "wss" if kwds.get("ssl") else "ws"
    return f"{scheme}://{host}:{port}/mux"


def in_threads(*args: Any, **kwds: Any) -> dict[str, Any]:
    return talk_in_threads(muxado.sync.connect(*args, **kwds))


def websocket_in_threads(*args: Any, **kwds: Any) -> dict[str, Any]:
    connect = muxado.carriers.websockets.sync.connect
    return talk_in_threads(connect(url(*args, **kwds), **kwds))


def talk_in_threads(session: muxado.sync.Session) -> dict[str, Any]:
    with session, session.open() as stream:

        def send() -> None:
            for _ in range(PIECES):
                stream.sendall(PIECE)
            stream.write_eof()

        sending = threading.Thread(target=send)
        sending.start()
        received = bytearray()
        while data := stream.recv(65536):
            received += data
        sending.join()
        assert received == PIECE.upper() * PIECES
        info = {name: session.get_extra_info(name) for name in ("peername", "peercert")}
        return {"tls": info["peercert"] is not None} | info


def on_trio(*args: Any, **kwds: Any) -> dict[str, Any]:
    return trio.run(talk_on_trio, lambda: muxado.trio.connect(*args, **kwds))


def websocket_on_trio(*args: Any, **kwds: Any) -> dict[str, Any]:
    connect = muxado.carriers.websockets.trio.connect
    return trio.run(talk_on_trio, lambda: connect(url(*args, **kwds), **kwds))


async def talk_on_trio(connect: Callable[[], Any]) -> dict[str, Any]:
    with trio.fail_after(patience(30)):
        async with connect() as session, session.open() as stream, trio.open_nursery() as nursery:

            async def send() -> None:
                for _ in range(PIECES):
                    await stream.send_all(PIECE)
                await stream.send_eof()

            nursery.start_soon(send)
            assert await stream.readexactly(len(PIECE) * PIECES) == PIECE.upper() * PIECES
            info = {name: session.get_extra_info(name) for name in ("peername", "peercert")}
            return {"tls": info["peercert"] is not None} | info


Dial = Callable[..., dict[str, Any]]
STRAIGHT = [over_asyncio, over_uvloop, in_threads, on_trio]
WEBSOCKETS = [
    websocket_over_asyncio,
    websocket_over_uvloop,
    websocket_in_threads,
    websocket_on_trio,
]


@contextmanager
def hub(serve: Any, context: ssl.SSLContext | None) -> Iterator[int]:
    """Run a server on a loop in a thread of its own; give its port."""
    ports: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: list[Callable[[], object]] = []

    async def handle(session: muxado.Session) -> None:
        await session.serve(shout)

    async def main() -> None:
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        done.append(partial(loop.call_soon_threadsafe, over.set))
        async with serve(handle, "127.0.0.1", 0, ssl=context) as server:
            ports.put(server.addresses[0][1])
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        yield ports.get(timeout=patience(30))
    finally:
        done[0]()
        thread.join()


@pytest.fixture
def trusted(tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the system's authorities be the tests'."""
    file = tmp_path / "authority.pem"
    file.write_bytes(tls.authority.cert_pem.bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(file))


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("secured", [False, True], ids=["tcp", "tls"])
@pytest.mark.parametrize("dial", STRAIGHT + WEBSOCKETS)
def test_a_hub_is_reached_through_a_real_proxy_by_tls(
    dial: Dial, secured: bool, tls: Tls, tmp_path: Path
) -> None:
    serve = muxado.serve if dial in STRAIGHT else muxado.carriers.websockets.serve
    with (
        tinyproxy_by_tls(tmp_path, tls) as proxy,
        hub(serve, tls.server if secured else None) as port,
    ):
        told = dial("localhost", port, proxy=proxy, ssl=tls.client if secured else None)
        assert told["peername"][1] == int(proxy.rpartition(":")[2])
        assert told["tls"], "of the TLS that is nearest to the session"


@pytest.mark.usefixtures("trusted")
def test_the_environment_may_name_one(
    tls: Tls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tinyproxy_by_tls(tmp_path, tls) as proxy, hub(muxado.serve, None) as port:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        monkeypatch.setenv("NO_PROXY", "")
        told = over_asyncio("localhost", port, proxy="env")
        assert told["peername"][1] == int(proxy.rpartition(":")[2])


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("dial", STRAIGHT)
@pytest.mark.parametrize("secured", [False, True], ids=["tcp", "tls"])
def test_it_refuses_a_wrong_password(dial: Dial, secured: bool, tls: Tls, tmp_path: Path) -> None:
    context = tls.client if secured else None
    with tinyproxy_by_tls(tmp_path, tls) as proxy:
        wrong = proxy.replace(PASSWORD, "wrong")
        with pytest.raises(ProxyRefused, match=r"refused the connection to localhost:4000") as exc:
            dial("localhost", 4000, proxy=wrong, ssl=context)
    assert exc.value.status in (401, 407)


@pytest.mark.parametrize("dial", STRAIGHT)
def test_its_certificate_is_verified(dial: Dial, tls: Tls, tmp_path: Path) -> None:
    with (
        tinyproxy_by_tls(tmp_path, tls) as proxy,
        pytest.raises(ssl.SSLCertVerificationError) as caught,
    ):
        dial("localhost", 4000, proxy=proxy)
    assert "TLS handshake with the proxy at localhost" in str(caught.value.__notes__)


@pytest.mark.parametrize("dial", STRAIGHT)
@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""], ids=["http", "end"])
def test_one_without_tls_fails_in_the_handshake(dial: Dial, said: bytes) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(said)

    with (
        scripted(answer, BY_TLS) as proxy,
        pytest.raises((ssl.SSLError, ConnectionError)) as caught,
    ):
        dial("localhost", 4000, proxy=proxy)
    assert "TLS handshake with the proxy" in str(caught.value.__notes__)


def by_tls(tls: Tls, answer: Callable[[ssl.SSLSocket], None]) -> AbstractContextManager[str]:
    """Run what answers one connection, behind TLS; give its URL."""

    def run(connection: socket.socket) -> None:
        with tls.server.wrap_socket(connection, server_side=True) as secured:
            answer(secured)

    return scripted(run, BY_TLS)


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("dial", STRAIGHT)
def test_what_a_proxy_says_before_the_targets_tls_is_no_part_of_the_session(
    dial: Dial, tls: Tls
) -> None:
    def answer(connection: ssl.SSLSocket) -> None:
        assert b"\r\n\r\n" in connection.recv(65536)
        connection.sendall(
            b"HTTP/1.1 200 OK\r\n\r\n" + bytes.fromhex("0000051200000002") + b"hello"
        )
        connection.settimeout(patience(30))
        with suppress(OSError):
            while connection.recv(65536):
                pass

    with by_tls(tls, answer) as proxy, pytest.raises((ssl.SSLError, ProxyRefused)):
        dial("localhost", 4000, proxy=proxy, ssl=tls.client)


def take_on_loop(factory: Any, *args: Any, **kwds: Any) -> bytes:
    async def main() -> bytes:
        async with asyncio.timeout(patience(30)), muxado.connect(*args, **kwds) as session:
            async with await session.accept() as stream:
                data = await stream.read()
            session.abort()
            return data

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


def take_in_threads(*args: Any, **kwds: Any) -> bytes:
    with muxado.sync.connect(*args, **kwds) as session:
        with session.accept() as stream:
            data = stream.recv(100)
        session.abort()
        return data


def take_on_trio(*args: Any, **kwds: Any) -> bytes:
    async def main() -> bytes:
        with trio.fail_after(patience(30)):
            async with muxado.trio.connect(*args, **kwds) as session:
                async with await session.accept() as stream:
                    data = await stream.receive_some()
                session.abort()
                return bytes(data)

    return trio.run(main)


TAKING = [
    pytest.param(partial(take_on_loop, None), id="asyncio"),
    pytest.param(partial(take_on_loop, uvloop.new_event_loop), id="uvloop"),
    pytest.param(take_in_threads, id="threads"),
    pytest.param(take_on_trio, id="trio"),
]


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("take", TAKING)
def test_bytes_in_the_same_record_as_the_answer_are_the_targets(
    take: Callable[..., bytes], tls: Tls
) -> None:
    stream = bytes.fromhex("0000051300000002") + b"hello"  # opened and ended by the target

    def answer(connection: ssl.SSLSocket) -> None:
        assert b"\r\n\r\n" in connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + stream)
        with suppress(OSError):
            while connection.recv(65536):
                pass

    with by_tls(tls, answer) as proxy:
        assert take("localhost", 4000, proxy=proxy) == b"hello"


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("dial", STRAIGHT)
@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 20"], ids=["silent", "cut"])
def test_one_that_hangs_up_has_refused(dial: Dial, said: bytes, tls: Tls) -> None:
    def answer(connection: ssl.SSLSocket) -> None:
        connection.recv(65536)
        connection.sendall(said)
        with suppress(OSError):  # the peer may leave without a close_notify
            connection.unwrap()

    with by_tls(tls, answer) as proxy, pytest.raises(ProxyRefused, match="hung up"):
        dial("localhost", 4000, proxy=proxy)


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("dial", STRAIGHT)
def test_one_that_says_nothing_is_given_up(dial: Dial, tls: Tls) -> None:
    def answer(connection: ssl.SSLSocket) -> None:
        with suppress(OSError):
            while connection.recv(65536):
                pass

    with (
        by_tls(tls, answer) as proxy,
        pytest.raises(TimeoutError, match=r"localhost:4000 .*prox"),
    ):
        dial("localhost", 4000, proxy=proxy, timeout=1)
