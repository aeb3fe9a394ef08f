"""Dialling through proxies: which one, its handshake, and real ones, in every front end."""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import muxado
import muxado.carriers.websockets
import muxado.sync
import muxado.trio
from muxado import ProxyRefused, UsageError
from muxado.proxies import ProxyHandshake, choose_proxy
from tests.certificates import Tls
from tests.patience import patience
from tests.servers import PASSWORD, USER, microsocks, tinyproxy

from .scripted import scripted

REQUEST = b"CONNECT hub.example:4000 HTTP/1.1\r\nHost: hub.example:4000\r\n\r\n"
FRAMES = b"what the target says at once"
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set the environment's proxies to these, and no others."""

    def define(**variables: str) -> None:
        for name in PROXY_VARIABLES:
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.lower(), raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return define


# Which one


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://a:1"}, "a:1"),
        ({"https_proxy": "http://a:1"}, "a:1"),
        ({"ALL_PROXY": "socks5://b"}, "b:1080"),
        ({"HTTPS_PROXY": "http://a:1", "ALL_PROXY": "socks5://b:2"}, "a:1"),
        ({"HTTPS_PROXY": "a:3128"}, "a:3128"),
        ({"HTTPS_PROXY": "http://[::1]"}, "::1:80"),
        ({"HTTPS_PROXY": "https://a"}, "a:443"),
        ({"HTTP_PROXY": "http://a:1"}, None),
        ({"HTTPS_PROXY": ""}, None),
    ],
)
def test_the_environment_names_the_proxy(
    environment: Callable[..., None], variables: dict[str, str], found: str | None
) -> None:
    environment(**variables)
    proxy = choose_proxy("env", "hub.example", 4000)
    assert found == (None if proxy is None else f"{proxy.host}:{proxy.port}")


@pytest.mark.parametrize(
    ("host", "bypass", "direct"),
    [
        ("hub.example", "*", True),
        ("hub.example", "hub.example", True),
        ("HUB.example", "hub.EXAMPLE", True),
        ("hub.example", "other, example", True),
        ("hub.example", ".example", True),
        ("hub.example", "b.example", False),
        ("hub.example", "ub.example", False),
        ("hub.example", "hub.example:4000", True),
        ("hub.example", "hub.example:4001", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("::1", "[::1]:4000", True),
        ("fd00::1", "fd00::/8", True),
        ("hub.example", "10.0.0.0/8", False),
        ("hub.example", ", ", False),
    ],
)
def test_no_proxy_lists_what_is_reached_without(
    environment: Callable[..., None], host: str, bypass: str, direct: bool
) -> None:
    environment(HTTPS_PROXY="http://a:1", NO_PROXY=bypass)
    assert (choose_proxy("env", host, 4000) is None) is direct


@pytest.mark.parametrize(
    "proxy",
    [
        "",
        "env:",
        "a:1",
        "ftp://a:1",
        "http://",
        "http://a:0",
        "http://a:seven",
        "http://[::1",
        "http://a%3Ab:secret@c:1",
        "socks5://us%C3%A9r:secret@c:1",
        f"socks5://{'u' * 256}:secret@c:1",
        "socks4://a:1",
        7,
        b"http://a:1",
    ],
)
@pytest.mark.parametrize("front_end", [muxado, muxado.sync, muxado.trio])
def test_a_proxy_that_cannot_be_is_refused_at_once(front_end: Any, proxy: Any) -> None:
    for call in (front_end.connect, front_end.Dialer):
        with pytest.raises(UsageError, match="proxy=") as caught:
            call("hub.example", 4000, proxy=proxy)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("front_end", [muxado, muxado.sync, muxado.trio])
def test_a_proxy_is_for_host_and_port(front_end: Any) -> None:
    with pytest.raises(UsageError, match="proxy="):
        front_end.connect(path="somewhere", proxy="env")
    with pytest.raises(UsageError, match="proxy= is for connect"):
        front_end.Dialer(dial=print, proxy="env")


def test_a_password_is_not_shown() -> None:
    proxy = choose_proxy("http://user:secret@a:1", "hub.example", 4000)
    assert "secret" not in f"{proxy} {proxy!r}"


# The handshake


def shake_hands(
    url: str, answer: bytes, size: int, host: str = "hub.example"
) -> tuple[bytes, bytes]:
    """Take its steps, with receives of at most `size` bytes; return what was sent and is left."""
    proxy = choose_proxy(url, host, 4000)
    assert proxy is not None
    handshake = ProxyHandshake(proxy, host, 4000)
    sent = b""
    step = handshake.step()
    while step is not None:
        if isinstance(step, int):
            received, answer = answer[: min(step, size)], answer[min(step, size) :]
            step = handshake.step(received)
        else:
            sent += step
            step = handshake.step()
    return sent, answer


HTTP = "http://a:1"
SOCKS = "socks5://user:word@a:1"
SOCKS_GRANTED = b"\5\2\1\0\5\0\0\1\1\2\3\4\5\6"
SOCKS_ASKED = b"\5\2\0\2\1\4user\4word\5\1\0\3\x0bhub.example\x0f\xa0"


@pytest.mark.parametrize("size", range(1, 5))
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.0 200\r\nVia: tiny\r\n\r\n",
        b"HTTP/1.1 299 So\r\n\r\r\n\r\n",
    ],
)
def test_connect_takes_the_answer_and_no_more(answer: bytes, size: int) -> None:
    assert shake_hands(HTTP, answer + FRAMES, size) == (REQUEST, FRAMES)


@pytest.mark.parametrize("size", [1, 2, 100])
@pytest.mark.parametrize(
    "bound", [b"\1\1\2\3\4\5\6", b"\3\3abc\5\6", b"\4" + bytes(18)], ids=["v4", "name", "v6"]
)
def test_socks_takes_the_answer_and_no_more(bound: bytes, size: int) -> None:
    answer = b"\5\2\1\0\5\0\0" + bound
    assert shake_hands(SOCKS, answer + FRAMES, size) == (SOCKS_ASKED, FRAMES)


@pytest.mark.parametrize("url", [HTTP, SOCKS])
def test_a_proxy_that_hangs_up_anywhere_has_refused(url: str) -> None:
    answer = SOCKS_GRANTED if url == SOCKS else b"HTTP/1.1 200 OK\r\n\r\n"
    for length in range(len(answer)):
        with pytest.raises(ProxyRefused, match="hung up"):
            shake_hands(url, answer[:length], 100)
    assert shake_hands(url, answer, 100)[1] == b""


def test_connect_sends_the_password_and_addresses_in_brackets() -> None:
    sent, _ = shake_hands("http://user:w%3Ard@a:1", b"HTTP/1.1 200 OK\r\n\r\n", 9, "fd00::1")
    assert sent == (
        b"CONNECT [fd00::1]:4000 HTTP/1.1\r\nHost: [fd00::1]:4000\r\n"
        b"Proxy-Authorization: Basic dXNlcjp3OnJk\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("url", "answer", "status", "said"),
    [
        (HTTP, b"HTTP/1.1 407 Say who\r\n\r\n", 407, "407 Say who"),
        (HTTP, b"HTTP/1.1 101 Switching\r\n\r\n", 101, "101 Switching"),
        (HTTP, b"HTTP/1.1 2 0\r\n\r\n", 0, "something else than HTTP"),
        (HTTP, b"SSH-2.0-OpenSSH\r\n\r\n", 0, "SSH-2.0-OpenSSH"),
        (HTTP, b"HTTP/1.1 200 OK\r\n" + b"a" * 20000, 0, "more than"),
        (SOCKS, b"\5\xff", 0, "proxy at a:1 refused"),
        (SOCKS, b"\4\0", 0, "proxy at a:1 refused"),
        (SOCKS, b"\5\2\1\1", 0, "proxy at a:1 refused"),
        (SOCKS, b"\5\0\5\5\0\1\0\0\0\0\0\0", 0, "Connection refused"),
        (SOCKS, b"\5\0\5\0\0\7\0\0\0\0\0\0", 0, "proxy at a:1 refused"),
        (SOCKS, b"HTTP/1.1 400 Bad request\r\n\r\n", 0, "proxy at a:1 refused"),
        ("socks5://a:1", b"\5\2", 0, "proxy at a:1 refused"),
    ],
)
def test_other_answers_are_a_refusal(url: str, answer: bytes, status: int, said: str) -> None:
    with pytest.raises(ProxyRefused, match=said) as caught:
        shake_hands(url, answer, 100)
    assert caught.value.status == status


# In every front end


def on_asyncio(question: bytes, *args: Any, **kwds: Any) -> bytes:
    async def main() -> bytes:
        async with asyncio.timeout(patience(30)):
            async with muxado.connect(*args, **kwds) as session:
                async with await session.accept() as stream:
                    assert await stream.read() == FRAMES
                async with session.open() as stream:
                    await stream.write(question)
                    stream.write_eof()
                    return await stream.read()

    return asyncio.run(main())


def in_threads(question: bytes, *args: Any, **kwds: Any) -> bytes:
    with muxado.sync.connect(*args, **kwds) as session:
        with session.accept() as stream:
            assert read_all(stream) == FRAMES
        return ask_session(session, question)


def ask_session(session: muxado.sync.Session, question: bytes) -> bytes:
    with session.open() as stream:
        stream.sendall(question)
        stream.write_eof()
        return read_all(stream)


def read_all(stream: muxado.sync.Stream) -> bytes:
    pieces = []
    while data := stream.recv(65536):
        pieces.append(data)
    return b"".join(pieces)


def on_trio(question: bytes, *args: Any, **kwds: Any) -> bytes:
    async def main() -> bytes:
        with trio.fail_after(patience(30)):
            async with muxado.trio.connect(*args, **kwds) as session:
                async with await session.accept() as stream:
                    assert await stream.readexactly(len(FRAMES)) == FRAMES
                async with session.open() as stream:
                    await stream.send_all(question)
                    await stream.send_eof()
                    return await stream.readexactly(len(question))

    return trio.run(main)


Ask = Callable[..., bytes]


@pytest.fixture(params=[on_asyncio, in_threads, on_trio])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Dial a hub, take the stream that it opens at once, and ask on another one."""
    found: Ask = request.param
    return found


@contextmanager
def hub(ssl: Any = None) -> Iterator[int]:
    """Run a server that opens a stream of its own at once, and answers in capitals; its port."""

    def handle(session: muxado.sync.Session) -> None:
        with session.open() as stream:
            stream.sendall(FRAMES)
        for stream in session:
            with stream:
                stream.sendall(read_all(stream).upper())

    with muxado.sync.serve(handle, "127.0.0.1", 0, ssl=ssl) as server:
        yield server.addresses[0][1]


def test_bytes_in_the_same_packet_as_the_answer_are_the_targets(ask: Ask) -> None:
    with hub() as port:

        def answer(connection: socket.socket) -> None:
            assert b"\r\n\r\n" in connection.recv(65536)
            with socket.create_connection(("127.0.0.1", port)) as target:
                connection.sendall(b"HTTP/1.1 200 OK\r\nVia: us\r\n\r\n" + target.recv(65536))
                other = threading.Thread(target=copy, args=(connection, target))
                other.start()
                copy(target, connection)
                other.join()

        with scripted(answer) as url:
            assert ask(b"hello", "127.0.0.1", port, proxy=url) == b"HELLO"


def copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def test_a_refusal_is_raised(ask: Ask) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 502 No route\r\n\r\n")

    with scripted(answer) as url, pytest.raises(ProxyRefused, match="502 No route"):
        ask(b"", "hub.example", 4000, proxy=url)


def test_a_proxy_that_says_nothing_is_given_up(ask: Ask) -> None:
    def answer(connection: socket.socket) -> None:
        while connection.recv(65536):
            pass

    with scripted(answer) as url, pytest.raises(TimeoutError, match=r"hub.example:4000 .*proxy"):
        ask(b"", "hub.example", 4000, proxy=url, timeout=0.2)


def test_a_proxy_that_hangs_up_has_refused(ask: Ask) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(65536)

    with scripted(answer) as url, pytest.raises(ProxyRefused, match="hung up"):
        ask(b"", "hub.example", 4000, proxy=url)


# Real ones

REAL = [pytest.param(tinyproxy, id="tinyproxy"), pytest.param(microsocks, id="microsocks")]


@pytest.mark.parametrize("run", REAL)
@pytest.mark.parametrize("secured", [False, True], ids=["tcp", "tls"])
def test_a_hub_is_reached_through_a_real_proxy(
    ask: Ask, run: Any, secured: bool, tls: Tls, tmp_path: Path
) -> None:
    with run(tmp_path) as url, hub(tls.server if secured else None) as port:
        context = tls.client if secured else None
        question = bytes(1_000_000)
        assert ask(question, "localhost", port, proxy=url, ssl=context) == question


def leave_on_asyncio(data: bytes, *args: Any, **kwds: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(patience(30)), muxado.connect(*args, **kwds) as session:
            stream = session.open()
            await stream.write(data)
            stream.write_eof()

    asyncio.run(main())


def leave_in_threads(data: bytes, *args: Any, **kwds: Any) -> None:
    with muxado.sync.connect(*args, **kwds) as session:
        stream = session.open()
        stream.sendall(data)
        stream.write_eof()


def leave_on_trio(data: bytes, *args: Any, **kwds: Any) -> None:
    async def main() -> None:
        with trio.fail_after(patience(30)):
            async with muxado.trio.connect(*args, **kwds) as session:
                stream = session.open()
                await stream.send_all(data)
                await stream.send_eof()

    trio.run(main)


@pytest.mark.parametrize("run", REAL)
@pytest.mark.parametrize("leave", [leave_on_asyncio, leave_in_threads, leave_on_trio])
def test_what_was_written_before_the_end_passes_a_proxy_that_ends_both_ways(
    leave: Callable[..., None], run: Any, tmp_path: Path
) -> None:
    """microsocks does, and would so lose what the server has not read."""
    arrived: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()

    def handle(session: muxado.sync.Session) -> None:
        try:
            with session.accept() as stream:
                pieces = []
                while data := stream.recv(10_000):
                    pieces.append(data)
            arrived.put(b"".join(pieces))
        except Exception as exc:
            arrived.put(exc)

    written = bytes(range(256)) * 4096
    with run(tmp_path) as url, muxado.sync.serve(handle, "127.0.0.1", 0) as server:
        leave(written, "127.0.0.1", server.addresses[0][1], proxy=url)
        assert arrived.get(timeout=patience(30)) == written


@pytest.mark.parametrize("run", REAL)
def test_a_real_proxy_refuses_a_wrong_password(ask: Ask, run: Any, tmp_path: Path) -> None:
    with run(tmp_path) as url, pytest.raises(ProxyRefused) as caught:
        ask(b"", "127.0.0.1", 4000, proxy=url.replace(PASSWORD, "wrong"))
    assert caught.value.status in (0, 401, 407)
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize("run", REAL)
def test_a_hub_that_is_not_there_is_a_refusal(ask: Ask, run: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with run(tmp_path) as url, pytest.raises(ProxyRefused):
        ask(b"", "127.0.0.1", port, proxy=url)


@pytest.mark.parametrize("run", REAL)
def test_a_websocket_goes_through_a_real_proxy(
    run: Any, tls: Tls, tmp_path: Path, environment: Callable[..., None]
) -> None:
    async def main(url: str) -> bytes:
        async def shout(stream: muxado.Stream) -> None:
            await stream.write((await stream.read()).upper())

        async def handle(session: muxado.Session) -> None:
            await session.serve(shout)

        serve, connect = muxado.carriers.websockets.serve, muxado.carriers.websockets.connect
        async with asyncio.timeout(patience(30)):
            async with serve(handle, "127.0.0.1", 0, ssl=tls.server) as server:
                place = f"wss://localhost:{server.addresses[0][1]}/mux"
                async with connect(place, ssl=tls.client, proxy="env") as session:
                    assert session.remote_address[1] == int(url.rpartition(":")[2])
                    async with session.open() as stream:
                        await stream.write(b"hello")
                        stream.write_eof()
                        return await stream.read()

    with run(tmp_path) as url:
        environment(ALL_PROXY=url)
        assert asyncio.run(main(url)) == b"HELLO"


@pytest.mark.parametrize("run", REAL)
def test_a_dialer_outlives_a_restart_of_its_proxy(run: Any, tmp_path: Path) -> None:
    with run(tmp_path) as url:
        pass
    port = int(url.rpartition(":")[2])
    backoff = muxado.Backoff(most=0.2)

    with hub() as target:
        kwds: dict[str, Any] = {"proxy": url, "backoff": backoff}
        with muxado.sync.Dialer("127.0.0.1", target, **kwds) as dialer:
            for _ in range(2):
                with run(tmp_path, port):
                    session = dialer.session(patience(30))
                    assert ask_session(session, b"hello") == b"HELLO"
                session.wait_closed()


def test_a_dialer_gives_up_where_the_proxy_refuses_its_password(tmp_path: Path) -> None:
    with tinyproxy(tmp_path) as url:
        wrong = url.replace(USER, "stranger")
        with (
            muxado.sync.Dialer("127.0.0.1", 4000, proxy=wrong) as dialer,
            pytest.raises(ProxyRefused, match=r"40[17]"),
        ):
            dialer.session(patience(30))
