"""`muxado.sync.relay` between a stream and a socket: ends, resets, back-pressure, what it costs."""

from __future__ import annotations

import hashlib
import random
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from time import time
from typing import Any

import pytest

import muxado
from muxado import Config, ErrorCode, RelayResult
from muxado.sync import Session, Stream, relay
from muxado.testing import sync_pair

from ..certificates import Tls
from ..patience import patience
from .helpers import PATIENCE, echo, receive_all

pytestmark = pytest.mark.timeout(patience(30))

KIB = 1024
MIB = 1024 * KIB
WINDOW = 64 * KIB
KERNEL_BUFFER = 32 * KIB
KINDS = ["tcp", "unix", "tls"]
SMALL = Config(initial_window=WINDOW, max_window=WINDOW, write_high_water=WINDOW)

# Bytes that may be under way: a stream's two windows and queues, a piece, what the sockets hold.
MOST_UNDER_WAY = 4 * WINDOW + 256 * KIB + 64 * KIB + 512 * KIB


@dataclass
class Scene:
    """A relay that runs in a thread, a program at its socket, and the stream's other end."""

    user: socket.socket
    peer: Stream
    stream: Stream
    future: Future[RelayResult]
    near: Session
    far: Session

    def result(self) -> RelayResult:
        return self.future.result(PATIENCE)

    def receive_exactly(self, n: int) -> bytes:
        data = b""
        while len(data) < n:
            piece = self.user.recv(n - len(data))
            assert piece, "the end came too early"
            data += piece
        return data

    def receive_all(self) -> bytes:
        return b"".join(iter(lambda: self.user.recv(64 * KIB), b""))

    def receive_until_reset(self) -> bytes:
        data = b""
        try:
            while piece := self.user.recv(64 * KIB):
                data += piece
        except ConnectionError:
            return data
        raise AssertionError(f"a clean end after {len(data)} bytes")


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def connected(kind: str, tls: Tls | None) -> tuple[socket.socket, socket.socket]:
    """Return the relay's end of a connection, and the user's."""
    if kind == "unix":
        inside, user = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
            user = socket.socket()
            user.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
            user.connect(listening.getsockname())
            inside, _ = listening.accept()
    for sock in (inside, user):
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)
    if kind == "tls":
        assert tls is not None
        with ThreadPoolExecutor(1) as pool:
            accepting = pool.submit(tls.server.wrap_socket, inside, server_side=True)
            user = tls.client.wrap_socket(user, server_hostname="localhost")
            inside = accepting.result(PATIENCE)
    return inside, user


@contextmanager
def relayed(
    kind: str = "tcp", tls: Tls | None = None, config: Config = SMALL, **options: Any
) -> Iterator[Scene]:
    with sync_pair(config) as (near, far), ThreadPoolExecutor(1) as pool:
        stream = near.open(eager=True)
        peer = far.accept(PATIENCE)
        peer.settimeout(PATIENCE)
        inside, user = connected(kind, tls)
        future = pool.submit(relay, stream, inside, **options)
        try:
            yield Scene(user, peer, stream, future, near, far)
        finally:
            (stream.reset if stream.tells_resets else stream.close)()
            user.close()
            (peer.reset if peer.tells_resets else peer.close)()
            future.exception(PATIENCE)
            near.abort()
            far.abort()


@pytest.mark.parametrize("kind", KINDS)
def test_a_user_that_has_said_its_end_gets_the_whole_reply(kind: str, tls: Tls) -> None:
    before = time()
    with relayed(kind, tls) as scene, ThreadPoolExecutor(1) as pool:
        scene.user.sendall(b"question")
        if kind != "tls":
            scene.user.shutdown(socket.SHUT_WR)
            assert receive_all(scene.peer) == b"question"
        else:
            assert scene.peer.recv(8, socket.MSG_WAITALL) == b"question"
        writing = pool.submit(send_pieces, scene.peer, bytes(MIB))
        assert scene.receive_exactly(MIB) == bytes(MIB)
        writing.result(PATIENCE)
        if isinstance(scene.user, ssl.SSLSocket):
            scene.user.unwrap()
            assert receive_all(scene.peer) == b""
        else:
            assert scene.user.recv(1) == b""
        result = scene.result()
    assert (result.ended, result.to_stream, result.from_stream) == ("end", 8, MIB)
    assert (result.code, result.error, result.reset_lost) == (None, None, False)
    assert result.last_byte_at is not None
    assert before - 1 <= result.started_at <= result.last_byte_at <= time() + 1


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_peer_that_has_said_its_end_gets_the_whole_reply(kind: str) -> None:
    with relayed(kind) as scene, ThreadPoolExecutor(1) as pool:
        scene.peer.sendall(b"question")
        scene.peer.write_eof()
        assert scene.receive_all() == b"question"
        sending = pool.submit(scene.user.sendall, bytes(MIB))
        assert scene.peer.recv(MIB, socket.MSG_WAITALL) == bytes(MIB)
        sending.result(PATIENCE)
        scene.user.shutdown(socket.SHUT_WR)
        assert receive_all(scene.peer) == b""
        result = scene.result()
    assert (result.ended, result.to_stream, result.from_stream) == ("end", MIB, 8)


def send_pieces(stream: Stream, data: bytes) -> None:
    for start in range(0, len(data), 32 * KIB):
        stream.sendall(data[start : start + 32 * KIB])
    stream.write_eof()


# Resets


@pytest.mark.parametrize("kind", ["tcp", "tls"])
@pytest.mark.parametrize("half_closed", [False, True])
def test_a_reset_connection_resets_the_stream(kind: str, half_closed: bool, tls: Tls) -> None:
    with relayed(kind, tls) as scene:
        scene.user.sendall(b"x")
        assert scene.peer.recv(1) == b"x"
        if half_closed:
            scene.peer.write_eof()
            if kind == "tcp":
                assert scene.user.recv(1) == b""
        reset(scene.user)
        with pytest.raises(muxado.StreamReset) as caught:
            receive_all(scene.peer)
        assert caught.value.code == ErrorCode.STREAM_RESET
        result = scene.result()
    assert (result.ended, result.code) == ("other", ErrorCode.STREAM_RESET)
    assert isinstance(result.error, OSError)
    assert not result.reset_lost


def test_tls_that_is_cut_without_its_end_resets_the_stream(tls: Tls) -> None:
    with relayed("tls", tls) as scene:
        scene.user.sendall(b"half")
        assert scene.peer.recv(4, socket.MSG_WAITALL) == b"half"
        scene.user.close()  # no close_notify
        with pytest.raises(muxado.StreamReset):
            receive_all(scene.peer)
        assert scene.result().ended == "other"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("half_closed", ["neither", "user", "peer"])
def test_a_reset_stream_resets_the_connection(kind: str, half_closed: str, tls: Tls) -> None:
    with relayed(kind, tls) as scene:
        scene.peer.sendall(b"half an answer")
        assert scene.receive_exactly(14) == b"half an answer"
        if half_closed == "user" and kind != "tls":
            scene.user.shutdown(socket.SHUT_WR)
            assert receive_all(scene.peer) == b""
        elif half_closed == "peer":
            scene.peer.write_eof()
            if kind != "tls":
                assert scene.user.recv(1) == b""
        scene.peer.reset(77)
        result = scene.result()
        if kind == "unix":
            assert scene.user.recv(1) == b""  # it can't be told
        else:
            # By the end before it, a broken pipe.
            with pytest.raises((ConnectionError, ssl.SSLError)):
                scene.user.sendall(b"x")
    assert (result.ended, result.code) == ("stream", 77)
    assert isinstance(result.error, muxado.StreamReset)
    assert result.reset_lost == (kind == "unix")


def test_the_end_of_the_session_resets_the_connection() -> None:
    with relayed() as scene:
        scene.far.abort(5)
        assert scene.receive_until_reset() == b""
        result = scene.result()
    assert (result.ended, result.code) == ("stream", None)
    assert isinstance(result.error, muxado.SessionAborted)


def test_a_wire_without_resets_loses_one() -> None:
    with relayed(config=Config(wire="smux-v2")) as scene:
        scene.user.sendall(b"half")
        assert scene.peer.recv(4, socket.MSG_WAITALL) == b"half"
        reset(scene.user)
        assert receive_all(scene.peer) == b""  # it can't be told
        result = scene.result()
    assert (result.ended, result.reset_lost) == ("other", True)


def test_what_is_cut_at_any_byte_never_looks_whole() -> None:
    message = bytes(range(1, 13))
    for length in range(len(message) + 1):
        with relayed() as scene:
            scene.peer.sendall(message[:length])
            scene.far.ping()  # else the reset would overtake it
            scene.peer.reset()
            assert message.startswith(scene.receive_until_reset())
        with relayed() as scene:
            scene.user.sendall(message[:length])
            if length:
                assert scene.peer.recv(length, socket.MSG_WAITALL) == message[:length]
            reset(scene.user)
            with pytest.raises(muxado.StreamReset):
                receive_all(scene.peer)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_answer_arrives_though_its_peer_reads_no_more(kind: str, tls: Tls) -> None:
    """A server may answer, and close, before it has read the whole request."""
    with relayed(kind, tls) as scene:
        scene.user.sendall(bytes(WINDOW // 2))
        assert scene.peer.recv(1)
        scene.peer.sendall(bytes(WINDOW // 2))
        scene.peer.close()  # with bytes unread: FIN, and a RST behind it
        scene.user.sendall(bytes(100))
        assert scene.receive_exactly(WINDOW // 2) == bytes(WINDOW // 2)
        assert scene.user.recv(1) == b""
        if kind != "tls":
            scene.user.shutdown(socket.SHUT_WR)
        else:
            scene.user.close()
        result = scene.result()
    assert (result.ended, result.code) == ("stream", ErrorCode.STREAM_CLOSED)
    assert not result.reset_lost


# Back-pressure


def until_stalled(scene: Scene) -> int:
    """Wait until nothing moves in the relay any more; return the bytes that it has moved."""
    seen, calm = -1, 0
    while calm < 20:
        scene.near.ping()
        (snapshot,) = scene.near.streams()
        now = snapshot.bytes_received + snapshot.bytes_sent
        calm = calm + 1 if now == seen and now else 0
        seen = now
    return seen


def test_a_user_that_stops_reading_loses_nothing_and_stops_the_peer() -> None:
    data = random.Random(1).randbytes(4 * MIB)
    with relayed() as scene, ThreadPoolExecutor(1) as pool:
        writing = pool.submit(send_pieces, scene.peer, data)
        assert until_stalled(scene) < MOST_UNDER_WAY
        assert scene.receive_all() == data
        writing.result(PATIENCE)
        scene.user.shutdown(socket.SHUT_WR)
        assert scene.result().ended == "end"


@pytest.mark.parametrize("kind", KINDS)
def test_a_peer_that_stops_reading_loses_nothing_and_stops_the_user(kind: str, tls: Tls) -> None:
    data = random.Random(2).randbytes(4 * MIB)
    with relayed(kind, tls) as scene, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(scene.user.sendall, data)
        assert until_stalled(scene) < MOST_UNDER_WAY
        assert scene.peer.recv(len(data), socket.MSG_WAITALL) == data
        sending.result(PATIENCE)


def test_a_reset_finds_a_user_that_reads_nothing() -> None:
    with relayed() as scene, ThreadPoolExecutor(1) as pool:
        writing = pool.submit(send_pieces, scene.peer, bytes(4 * MIB))
        until_stalled(scene)
        scene.peer.reset(77)
        assert isinstance(writing.exception(PATIENCE), muxado.MuxadoError)
        result = scene.result()
        assert len(scene.receive_until_reset()) < MOST_UNDER_WAY
    assert (result.ended, result.code) == ("stream", 77)


def test_a_reset_connection_is_found_though_its_peer_reads_nothing() -> None:
    with relayed() as scene, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(scene.user.sendall, bytes(4 * MIB))
        until_stalled(scene)
        scene.user.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        scene.user.shutdown(socket.SHUT_RD)
        scene.stream.session.ping()
        scene.user.close()
        result = scene.result() if sending.exception(PATIENCE) else None
    assert result is not None
    assert result.ended == "other"


# Timeouts, cancellation


def test_a_silent_relay_is_cut_by_its_idle_timeout() -> None:
    with relayed(idle_timeout=0.05) as scene:
        with pytest.raises(muxado.StreamReset) as caught:
            receive_all(scene.peer)
        assert caught.value.code == ErrorCode.STREAM_CANCELLED
        assert scene.receive_until_reset() == b""
        assert scene.result().ended == "idle"


@pytest.mark.parametrize("first", ["user", "peer"])
def test_a_half_closed_relay_is_cut_by_its_timeout(first: str) -> None:
    with relayed(half_closed_timeout=0.05) as scene:
        scene.user.sendall(b"x")
        assert scene.peer.recv(1) == b"x"
        if first == "user":
            scene.user.shutdown(socket.SHUT_WR)
        else:
            scene.peer.write_eof()
        result = scene.result()
    assert (result.ended, result.code) == ("half_closed", ErrorCode.STREAM_CANCELLED)


def test_another_thread_ends_it_by_resetting_the_stream() -> None:
    with relayed() as scene:
        scene.user.sendall(b"x")
        assert scene.peer.recv(1) == b"x"
        scene.stream.reset()
        assert scene.receive_until_reset() == b""
        with pytest.raises(muxado.StreamReset):
            receive_all(scene.peer)
        assert scene.result().ended == "stream"


def test_bad_arguments_are_told_at_once() -> None:
    with sync_pair() as (near, _), near.open() as stream, socket.socket() as sock:
        for timeout in (0, -1, float("nan")):
            with pytest.raises(muxado.UsageError, match="above 0"):
                relay(stream, sock, idle_timeout=timeout)
            with pytest.raises(muxado.UsageError, match="above 0"):
                relay(stream, sock, half_closed_timeout=timeout)
        with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            for other in (datagrams, stream, None):
                with pytest.raises(muxado.UsageError, match="stream socket"):
                    relay(stream, other)  # type: ignore[arg-type]


INTERRUPTED = """
import socket
import muxado
from muxado.sync import relay
from muxado.testing import sync_pair
with sync_pair() as (near, far):
    stream = near.open(eager=True)
    peer = far.accept()
    inside, user = socket.socketpair()
    user.sendall(b"ready")
    peer.read_nowait(1, lambda: print("ready", flush=True))
    try:
        relay(stream, inside)
    except KeyboardInterrupt:
        print(inside.fileno())
        try:
            print(peer.wait_reset())
        except muxado.SessionError:  # inside a step of the session's, it has ended that
            print(6)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for one process")
def test_an_interrupt_resets_both() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=PATIENCE)[0] == f"-1\n{ErrorCode.STREAM_CANCELLED:d}\n"


# Many, and what one costs


def test_many_at_once_with_a_thread_each() -> None:
    count = 100
    source = random.Random(3)
    everyone = threading.Barrier(count, timeout=PATIENCE)
    with sync_pair() as (near, far), ThreadPoolExecutor(2 * count) as pool:
        far.on_stream(lambda stream: pool_of_echoes.submit(echo_and_close, stream))

        def use(data: bytes) -> RelayResult:
            inside, user = connected("tcp", None)
            future = pool.submit(relay, near.open(), inside)
            everyone.wait()
            user.sendall(data)
            user.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: user.recv(64 * KIB), b""))
            assert hashlib.sha256(answer).digest() == hashlib.sha256(data).digest()
            user.close()
            return future.result(PATIENCE)

        with ThreadPoolExecutor(count) as pool_of_echoes:
            futures = [
                pool.submit(use, source.randbytes(source.randrange(1, 8 * KIB)))
                for _ in range(count)
            ]
            assert {future.result(PATIENCE).ended for future in futures} == {"end"}


def echo_and_close(stream: Stream) -> None:
    with stream:
        echo(stream)


def test_a_relay_starts_no_thread() -> None:
    before = set(threading.enumerate())
    with sync_pair() as (near, far):
        inside, user = connected("tcp", None)
        seen: list[str] = []

        def handle(stream: Stream) -> None:
            def look() -> None:
                seen.extend(thread.name for thread in set(threading.enumerate()) - before)
                stream.reset()

            if stream.read_nowait(1, look) is not None:
                look()

        far.on_stream(handle)
        user.sendall(b"x")
        assert relay(near.open(), inside).ended == "stream"
        user.close()
    assert seen == ["muxado session"] * 2
