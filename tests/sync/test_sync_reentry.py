"""Calls that the garbage collector or a signal starts during another call."""

from __future__ import annotations

import gc
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO, Any

import pytest

import muxado
from muxado import sync
from muxado.sync import Session, Stream
from muxado.testing import sync_pair
from tests.patience import patience

from .helpers import PATIENCE, background, opened, receive_all

pytestmark = pytest.mark.timeout(patience(10))  # what they look for are deadlocks


class Interrupted(socket.socket):
    """A transport that does what a test wants when it is written to, during a call."""

    meanwhile: Callable[[], object] | None = None

    def send(self, data: Any, flags: int = 0) -> int:
        meanwhile = self.meanwhile
        if meanwhile is not None and threading.current_thread() is threading.main_thread():
            self.meanwhile = None
            meanwhile()
        return super().send(data, flags)


@pytest.fixture
def pair() -> Iterator[tuple[Session, Session, Interrupted]]:
    near, far = socket.socketpair()
    transport = Interrupted(fileno=near.detach())
    with sync.client(transport) as client, sync.server(far) as server:
        yield client, server, transport
        client.abort()
        server.abort()


class Cycle:
    """Keeps a file until the collector comes."""

    def __init__(self, file: IO[Any]) -> None:
        self.file = file
        self.cycle = self


def drop(file: IO[Any]) -> None:
    Cycle(file)


@contextmanager
def handling(signum: int, handler: Callable[[], object]) -> Iterator[None]:
    before = signal.signal(signum, lambda *_: handler())
    try:
        yield
    finally:
        signal.signal(signum, before)


def test_a_file_collected_in_the_midst_of_a_call_closes_its_stream(
    pair: tuple[Session, Session, Interrupted],
) -> None:
    client, server, transport = pair
    with opened(client, server) as (near, far):
        file = near.makefile("wb")
        file.write(b"last words")
        file.flush()
        near.close()  # it is the file that keeps it open
        drop(file)
        del file
        transport.meanwhile = gc.collect
        with client.open(eager=True):
            assert receive_all(far) == b"last words"


def test_files_collected_amid_traffic() -> None:
    thresholds = gc.get_threshold()
    gc.set_threshold(50)
    try:
        with sync_pair() as (client, server):

            def answer(stream: Stream) -> None:
                file = stream.makefile("rwb")
                file.write(file.readline())
                file.flush()
                drop(file)

            def ask(number: int) -> bytes:
                with client.open() as stream:
                    stream.settimeout(PATIENCE)
                    stream.sendall(b"%d\n" % number)
                    return stream.recv(100)

            with background(server.serve, answer), ThreadPoolExecutor(4) as pool:
                for number, line in enumerate(pool.map(ask, range(300))):
                    assert line == b"%d\n" % number
                client.close()
    finally:
        gc.set_threshold(*thresholds)


def test_a_signals_handler_ends_things_in_the_midst_of_a_call(
    pair: tuple[Session, Session, Interrupted],
) -> None:
    client, server, transport = pair
    with opened(client, server) as (near, far):

        def handle() -> None:
            near.sendall(b"bye")
            near.close()
            client.close()

        with handling(signal.SIGUSR1, handle):
            transport.meanwhile = lambda: signal.raise_signal(signal.SIGUSR1)
            client.open(eager=True).close()
        assert receive_all(far) == b"bye"
        server.wait_closed(PATIENCE)
        assert client.closed


def test_a_signals_handler_that_asks_in_the_midst_of_a_call_is_refused(
    pair: tuple[Session, Session, Interrupted],
) -> None:
    client, server, transport = pair
    with opened(client, server) as (near, far):
        refused: list[Callable[[], object]] = [
            client.stats,
            client.open,
            client.accept,
            client.wait_closed,
            lambda: near.recv(1),
        ]

        def handle() -> None:
            for call in refused:
                with pytest.raises(muxado.UsageError, match="busy in this thread"):
                    call()
            near.reset(-1)  # a wrong code: it runs later, when no caller can be told
            refused.clear()

        with handling(signal.SIGUSR1, handle):
            transport.meanwhile = lambda: signal.raise_signal(signal.SIGUSR1)
            near.sendall(b"x")
        assert not refused
        assert far.recv(1) == b"x"


def test_a_signals_handler_may_write_while_a_write_waits(
    pair: tuple[Session, Session, Interrupted],
) -> None:
    client, server, _ = pair
    with opened(client, server) as (near, far):
        size = 2 * (client.config.initial_window or 0)
        near.sendall(bytes(size))

        def handle() -> None:
            near.sendall(b"signal")
            reading.submit(far.recv, size + 11, socket.MSG_WAITALL).add_done_callback(
                answers.append
            )

        answers: list[Any] = []
        with ThreadPoolExecutor(1) as reading, handling(signal.SIGALRM, handle):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            near.sendall(b"later")
        (answer,) = answers
        assert answer.result() == bytes(size) + b"signallater"
