"""A stream in the place of a `socket.socket`."""

from __future__ import annotations

import errno
import io
import select
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import muxado
from muxado import ErrorCode, sync, testing

from .conftest import Ends
from .helpers import PATIENCE, background, echo, opened, receive_all, until_read

MIB = 1024 * 1024


def test_every_way_to_send(ends: Ends, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with opened(*ends) as (near, far):
        assert near.send(b"send ") == 5
        near.sendall(bytearray(b"sendall "))
        assert near.sendmsg([b"send", memoryview(b"msg ")]) == 8
        with path.open("rb") as file:
            assert near.sendfile(file, 2, 3) == 3
            assert file.tell() == 5
            assert near.sendfile(file, 8) == 2
            assert near.sendfile(file, 8, 0) == 0
            assert near.sendfile(file) == 2
            with pytest.raises(ValueError, match="count"):
                near.sendfile(file, 0, -1)
        near.write_eof()
        assert receive_all(far) == b"send sendall sendmsg 2348989"
        with pytest.raises(muxado.UsageError):
            near.send(b"x", socket.MSG_OOB)


def test_every_way_to_receive(ends: Ends) -> None:
    with opened(*ends) as (near, far):
        near.sendall(b"abcdefghij")
        ends[0].ping(PATIENCE)
        assert far.recv(0) == b""
        assert far.recv(2) == b"ab"
        buffer = bytearray(4)
        assert far.recv_into(buffer, 2) == 2
        assert buffer == b"cd\0\0"
        assert far.recv_into(memoryview(buffer)) == 4
        assert buffer == b"efgh"
        for wrong in (5, -1):
            with pytest.raises(ValueError, match="nbytes"):
                far.recv_into(buffer, wrong)
        with pytest.raises(TypeError):
            far.recv_into(memoryview(b"constant"))
        with pytest.raises(ValueError, match="negative"):
            far.recv(-1)
        with pytest.raises(muxado.UsageError):
            far.recv(1, socket.MSG_PEEK)
        assert far.recv(100) == b"ij"


def test_receiving_all_of_more_than_the_window(ends: Ends) -> None:
    with opened(*ends) as (near, far), background(near.sendall, bytes(MIB)):
        assert far.recv(MIB, socket.MSG_WAITALL) == bytes(MIB)
        near.sendall(b"short")
        with background(far.recv, 10, socket.MSG_WAITALL) as receiving:
            ends[0].ping(PATIENCE)
            assert not receiving.done()
            near.write_eof()
            assert receiving.result(PATIENCE) == b"short"


def test_receiving_all_that_times_out_loses_nothing(ends: Ends) -> None:
    with opened(*ends) as (near, far):
        near.sendall(b"half")
        far.settimeout(0.02)
        with pytest.raises(TimeoutError):
            far.recv(8, socket.MSG_WAITALL)
        near.sendall(b"more")
        far.settimeout(PATIENCE)
        assert far.recv(8, socket.MSG_WAITALL) == b"halfmore"


def test_timeouts_as_a_sockets(ends: Ends) -> None:
    with opened(*ends) as (near, far):
        far.settimeout(None)
        assert (far.gettimeout(), far.timeout, far.getblocking()) == (None, None, True)
        far.settimeout(0.02)
        assert far.gettimeout() == 0.02
        with pytest.raises(TimeoutError):
            far.recv(1)
        far.setblocking(False)
        assert (far.gettimeout(), far.getblocking()) == (0.0, False)
        with pytest.raises(BlockingIOError) as caught:
            far.recv(1)
        assert caught.value.errno == errno.EAGAIN
        far.setblocking(True)
        assert far.gettimeout() is None
        with pytest.raises(ValueError, match="range"):
            far.settimeout(-1)
        near.setblocking(False)
        assert near.send(bytes(MIB)) == MIB  # it takes all or nothing
        with pytest.raises(BlockingIOError):
            near.send(b"x")
        near.settimeout(0.02)
        with pytest.raises(TimeoutError):
            near.send(b"x")
        near.reset()


def test_the_default_timeout_is_the_modules(ends: Ends) -> None:
    socket.setdefaulttimeout(7.5)
    try:
        with ends[0].open() as stream:
            assert stream.gettimeout() == 7.5
    finally:
        socket.setdefaulttimeout(None)


def test_shutdown_as_a_sockets(ends: Ends) -> None:
    with opened(*ends) as (near, far):
        near.shutdown(socket.SHUT_WR)
        assert far.recv(10) == b""
        with pytest.raises(BrokenPipeError):
            near.send(b"x")
        far.sendall(b"come")
        ends[1].ping(PATIENCE)
        near.shutdown(socket.SHUT_RD)
        assert near.recv(10) == b"come"
        assert near.recv(10) == b""
        with pytest.raises(ValueError, match="SHUT_RD"):
            near.shutdown(17)
    with opened(*ends) as (near, far), background(near.recv, 10) as receiving:
        until_read(near)
        near.shutdown(socket.SHUT_RDWR)
        assert receiving.result(PATIENCE) == b""


def test_addresses_and_what_a_stream_has_not(ends: Ends) -> None:
    client, _ = ends
    with client.open() as stream:
        assert stream.getpeername() == client.remote_address
        assert stream.getsockname() == client.local_address
        assert stream.family == socket.AF_UNIX
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with pytest.raises(muxado.UsageError, match="to_socket"):
            stream.fileno()
        with pytest.raises((muxado.UsageError, ValueError)):
            select.select([stream], [], [], 0)


# makefile


def test_files_of_text_lines(ends: Ends) -> None:
    with (
        opened(*ends) as (near, far),
        near.makefile("rw", encoding="utf-8", newline="\n") as here,
    ):
        here.write("grüße\nsecond\n")
        here.flush()
        near.write_eof()
        with far.makefile("r", encoding="utf-8") as there:
            assert list(there) == ["grüße\n", "second\n"]


def test_files_of_bytes(ends: Ends) -> None:
    with opened(*ends) as (near, far):
        with near.makefile("wb") as writing, far.makefile("rb") as reading:
            writing.write(b"buffered")
            far.settimeout(0.02)
            with pytest.raises(TimeoutError):
                far.recv(1)
            writing.flush()
            far.settimeout(PATIENCE)
            assert reading.read(8) == b"buffered"
        with near.makefile("wb", 0) as writing, far.makefile("rb", 0) as reading:
            writing.write(b"at once")
            assert reading.read(100) == b"at once"
            assert isinstance(reading, io.RawIOBase)
        for wrong in ("a", "rwx"):
            with pytest.raises(ValueError, match="mode"):
                near.makefile(wrong)
        with pytest.raises(ValueError, match="binary"):
            near.makefile("r", 0)


def test_a_file_tells_its_state(ends: Ends) -> None:
    with ends[0].open() as stream, stream.makefile("rb") as file:
        assert "BufferedReader" in repr(file)


def test_a_stream_closes_with_the_last_of_its_files(ends: Ends) -> None:
    with opened(*ends) as (near, far):
        first, second = near.makefile("rb"), near.makefile("wb")
        near.close()
        second.write(b"still open")
        second.close()
        assert far.recv(100) == b"still open"
        far.sendall(b"answer")
        assert first.read(6) == b"answer"
        first.close()
        assert receive_all(far) == b""


def test_a_file_of_a_stream_without_timeout_says_none(ends: Ends) -> None:
    with opened(*ends) as (near, _), near.makefile("rb", 0) as file:
        near.setblocking(False)
        assert file.read(1) is None


# to_socket


def test_a_bridge_can_be_selected_and_half_closed(ends: Ends) -> None:
    with ends[1].open() as far:
        far.settimeout(PATIENCE)
        far.sendall(b"question")
        with ends[0].accept(PATIENCE).to_socket() as sock:
            assert select.select([sock], [], [], PATIENCE)[0] == [sock]
            assert sock.recv(100) == b"question"
            sock.sendall(b"answer")
            sock.shutdown(socket.SHUT_WR)
            assert receive_all(far) == b"answer"
            far.write_eof()
            assert sock.recv(100) == b""


def test_a_bridge_ends_with_a_reset(ends: Ends) -> None:
    with opened(*ends) as (near, far), near.to_socket() as sock:
        far.reset()
        sock.settimeout(PATIENCE)
        assert sock.recv(1) == b""


def test_a_bridge_whose_socket_is_dropped_resets_or_closes(ends: Ends) -> None:
    with opened(*ends) as (near, far):
        near.to_socket().close()
        assert receive_all(far) == b""
        far.write_eof()
        assert far.wait_reset(PATIENCE) is None


def test_a_bridge_whose_socket_is_dropped_waits_for_no_silent_peer(ends: Ends) -> None:
    client, _ = ends
    before = set(threading.enumerate())
    with opened(*ends) as (near, far):
        near.to_socket().close()
        for thread in set(threading.enumerate()) - before:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        assert receive_all(far) == b""
        assert client.stats().streams == 0


# Threads


def test_many_threads_use_one_session(ends: Ends) -> None:
    client, server = ends

    def ask(number: int) -> bytes:
        with client.open() as stream:
            stream.settimeout(PATIENCE)
            stream.sendall(b"%d" % number * 1000)
            stream.write_eof()
            return receive_all(stream)

    with background(server.serve, echo), ThreadPoolExecutor(32) as pool:
        for number, answer in enumerate(pool.map(ask, range(200))):
            assert answer == b"%d" % number * 1000
        client.close()


def test_writers_of_one_stream_take_turns(ends: Ends) -> None:
    pieces = [bytes([number]) * 50_000 for number in range(20)]
    with opened(*ends) as (near, far), ThreadPoolExecutor(20) as pool:
        sending = pool.map(near.sendall, pieces)
        data = far.recv(20 * 50_000, socket.MSG_WAITALL)
        assert list(sending) == [None] * 20
    assert sorted(data[at : at + 50_000] for at in range(0, len(data), 50_000)) == pieces


def test_a_second_reader_is_told(ends: Ends) -> None:
    with opened(*ends) as (near, far), background(near.recv, 1) as first:
        until_read(near)
        with pytest.raises(muxado.StreamBusy):
            near.recv(1)
        far.sendall(b"1")
        assert first.result(PATIENCE) == b"1"


def test_close_wakes_the_calls_that_wait(ends: Ends) -> None:
    client, _ = ends
    with opened(*ends) as (near, _):
        near.sendall(bytes(MIB))
        with (
            background(near.recv, 1) as receiving,
            background(near.send, b"x") as sending,
            background(near.wait_reset, PATIENCE) as waiting,
        ):
            client.ping(PATIENCE)
            near.close()
            for call in (receiving, sending):
                with pytest.raises(muxado.StreamClosed):
                    call.result(PATIENCE)
            near.reset()
            assert waiting.result(PATIENCE) == ErrorCode.STREAM_CANCELLED


@pytest.mark.parametrize("flags", [0, socket.MSG_WAITALL])
def test_the_sessions_close_wakes_a_reader(flags: int) -> None:
    near, silent = socket.socketpair()
    with silent, sync.client(near) as client, client.open(eager=True) as stream:
        with background(stream.recv, 10, flags) as receiving:
            until_read(stream)
            client.close()
            with pytest.raises(muxado.SessionClosed):
                receiving.result(PATIENCE / 10)
        client.abort()


def test_an_interrupted_read_leaves_the_stream_readable(ends: Ends) -> None:
    class InterruptedInTime(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise InterruptedInTime

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with opened(*ends) as (near, far):
            main = threading.main_thread().ident
            assert main is not None
            timer = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGUSR1))
            timer.start()
            with pytest.raises(InterruptedInTime):
                near.recv(1)
            far.sendall(b"x")
            assert near.recv(1) == b"x"
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_leaving_a_stream_waits_for_the_window(ends: Ends) -> None:
    client, server = ends

    def send() -> None:
        with client.open() as stream:
            stream.settimeout(PATIENCE)
            stream.sendall(bytes(MIB))

    with background(send) as sending, server.accept(PATIENCE) as far:
        client.ping(PATIENCE)
        assert not sending.done()
        assert len(receive_all(far)) == MIB
        sending.result(PATIENCE)


def test_leaving_a_stream_gives_up_within_its_timeout(ends: Ends) -> None:
    client, server = ends
    stream = client.open(eager=True)
    with server.accept(PATIENCE) as far:
        stream.settimeout(0.02)
        with pytest.raises(TimeoutError), stream:
            stream.sendall(bytes(MIB))
        assert far.wait_reset(PATIENCE) == ErrorCode.STREAM_CANCELLED


@pytest.mark.parametrize(
    ("failure", "code"),
    [(ZeroDivisionError, ErrorCode.INTERNAL_ERROR), (SystemExit, ErrorCode.STREAM_CANCELLED)],
)
def test_leaving_a_stream_by_an_exception_resets_it(
    ends: Ends, failure: type[BaseException], code: int
) -> None:
    client, server = ends
    near = client.open(eager=True)
    far = server.accept(PATIENCE)
    with pytest.raises(failure), near:
        raise failure
    assert far.wait_reset(PATIENCE) == code


def test_a_dropped_stream_warns_and_is_reset(ends: Ends) -> None:
    client, server = ends
    streams = [client.open(eager=True)]
    with server.accept(PATIENCE) as far:
        with pytest.warns(ResourceWarning, match="unclosed stream <Stream 3 open"):
            streams.clear()
        assert far.wait_reset(PATIENCE) == ErrorCode.STREAM_CANCELLED


def test_a_dropped_stream_leaves_the_peer_a_moment_to_read_what_was_sent() -> None:
    with testing.sync_pair() as (client, server):
        with pytest.warns(ResourceWarning, match="unclosed stream"):
            client.open().sendall(b"the last words")
        stream = server.accept(PATIENCE)
        assert stream.recv(100) == b"the last words"
        assert stream.wait_reset(PATIENCE) == ErrorCode.STREAM_CANCELLED
        stream.close()
