"""A relay between two TCP ends that behaves as badly as a network can.

It runs in a thread of its own, so that an event loop that is blocked does not hold it up too.
Everything about it can be changed while it runs.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Self

from tests.patience import patience

Address = tuple[str, int]

READ_SIZE = 64 * 1024
# Little may hide in the kernel in front of a slow line.
KERNEL_BUFFER = 32 * 1024
# Bytes that one way of one connection holds at most.
CAPACITY = 256 * 1024
# Seconds' worth of bytes that a throttled way lets out at once.
GRAIN = 0.01
# Seconds after which the relay looks again, whatever happens.
IDLE = 0.5

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Way:
    """One direction of every connection.

    Attributes:
        delay: seconds that each byte takes.
        rate: bytes per second, None for no limit.
        held: True for a black hole: nothing passes, neither bytes nor an end.
        passed: bytes that have passed, of all connections.
    """

    def __init__(self) -> None:
        self.delay = 0.0
        self.rate: float | None = None
        self.held = False
        self.passed = 0
        self.limit: int | None = None
        self.reset_at_limit = False


class _Pipe:
    """What one connection has under way in one direction."""

    def __init__(self, way: Way, source: socket.socket, target: socket.socket) -> None:
        self.way = way
        self.source = source
        self.target = target
        self.waiting: deque[tuple[float, bytes]] = deque()
        self.size = 0
        self.free_at = 0.0
        self.source_ended = False
        self.ended = False

    def wants_input(self) -> bool:
        return not (self.way.held or self.source_ended) and self.size < CAPACITY

    def due(self) -> float | None:
        """Return when there is something to hand over, None if there is nothing."""
        if self.way.held or not self.waiting:
            return None
        return self.waiting[0][0]

    def read(self, now: float) -> None:
        """Take in what has come."""
        rate = self.way.rate
        size = READ_SIZE if rate is None else max(1, min(READ_SIZE, int(rate * GRAIN)))
        data = self.source.recv(size)
        self.source_ended = not data
        self.size += len(data)
        if rate is not None:
            self.free_at = max(now, self.free_at) + len(data) / rate
        else:
            self.free_at = now
        self.waiting.append((self.free_at + self.way.delay, data))

    def write(self, now: float) -> bool:
        """Hand over what is due; return False once the connection has to be cut."""
        way = self.way
        while not way.held and self.waiting and self.waiting[0][0] <= now:
            due, data = self.waiting[0]
            if not data:
                self.waiting.clear()
                self.ended = True
                self.target.shutdown(socket.SHUT_WR)
                return True
            room = len(data) if way.limit is None else way.limit - way.passed
            sent = self.target.send(data[:room])
            self.size -= sent
            way.passed += sent
            if way.limit is not None and way.passed >= way.limit:
                return False
            if sent < len(data):
                self.waiting[0] = (due, data[sent:])
                return True
            self.waiting.popleft()
        return True


class Relay:
    """Passes every connection that it takes on to an address, while its block runs.

    Attributes:
        address: where to dial it.
        to_server: the way from the ends that dial it to the other.
        to_client: the way back.
    """

    def __init__(self, target: Address) -> None:
        self.to_server = Way()
        self.to_client = Way()
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
        self.address: Address = self._listener.getsockname()
        self._connections: list[tuple[_Pipe, _Pipe]] = []
        self._limbo: list[socket.socket] = []  # ends that no news can reach
        self._bell, self._ring = socket.socketpair()
        self._orders: deque[Callable[[], None]] = deque()
        self._running = True
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    # What a test does with it

    @property
    def ways(self) -> tuple[Way, Way]:
        """Both ways, for what is to be done to each."""
        return self.to_server, self.to_client

    def shape(self, *, delay: float = 0.0, rate: float | None = None) -> None:
        """Give both ways a delay in seconds and a limit in bytes per second."""
        for way in self.ways:
            way.delay = delay
            way.rate = rate

    def hold(self, *ways: Way) -> None:
        """Let nothing pass any more on these ways, on both if none is named."""
        self._do(lambda: self._set_held(ways or self.ways, True))

    def release(self) -> None:
        """Let everything pass again, what was held up first."""
        self._do(lambda: self._set_held(self.ways, False))

    def cut_after(self, way: Way, count: int, *, reset: bool = False) -> None:
        """Cut a connection once so many more bytes have gone that way: end it, or reset it."""

        def cut() -> None:
            way.limit = way.passed + count
            way.reset_at_limit = reset

        self._do(cut)

    def reset(self) -> None:
        """Reset every connection, at both ends."""
        self._do(lambda: self._drop_all(reset=True))

    def end(self) -> None:
        """End every connection, at both ends, wherever in a frame it is."""
        self._do(lambda: self._drop_all(reset=False))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._running = False
        self._ring.send(b".")
        self._thread.join()
        self._drop_all(reset=True)
        for sock in (self._listener, self._bell, self._ring, *self._limbo):
            sock.close()

    def _do(self, order: Callable[[], None]) -> None:
        """Have something done in the relay's thread, and wait until it is."""
        done = threading.Event()
        self._orders.append(order)
        self._orders.append(done.set)
        self._ring.send(b".")
        if not done.wait(patience(10)):
            raise RuntimeError("the relay does not answer")

    # In the thread

    def _run(self) -> None:
        while self._running:
            now = monotonic()
            wake = now + IDLE
            reading = {}
            writing = {}
            for pair in self._connections:
                for pipe in pair:
                    if pipe.wants_input():
                        reading[pipe.source] = pipe
                    due = pipe.due()
                    if due is None:
                        continue
                    if due <= now:
                        writing[pipe.target] = pipe
                    else:
                        wake = min(wake, due)
            readable, writable, _ = select.select(
                [self._bell, self._listener, *reading], list(writing), [], wake - now
            )
            if self._bell in readable:
                self._bell.recv(1024)
                while self._orders:
                    self._orders.popleft()()
                continue
            if self._listener in readable:
                self._accept()
            now = monotonic()
            for sock in writable:
                self._write(writing[sock], now)
            for sock in readable:
                if sock in reading:
                    self._read(reading[sock], now)
            for pair in list(self._connections):
                if pair[0].ended and pair[1].ended:
                    self._drop(pair, reset=False)

    def _read(self, pipe: _Pipe, now: float) -> None:
        try:
            pipe.read(now)
        except OSError:
            self._broken(pipe, pipe.source)

    def _write(self, pipe: _Pipe, now: float) -> None:
        try:
            whole = pipe.write(now)
        except BlockingIOError:
            return
        except OSError:
            self._broken(pipe, pipe.target)
            return
        if not whole:
            pipe.way.limit = None
            self._drop(self._pair(pipe), reset=pipe.way.reset_at_limit)

    def _broken(self, pipe: _Pipe, end: socket.socket) -> None:
        """Take note that an end has reset its connection; the other is told if it can be."""
        if pipe.source.fileno() < 0:  # closed just now, for the other way's sake
            return
        pair = self._pair(pipe)
        (onward,) = [each for each in pair if each.source is end]
        if onward.way.held:
            self._limbo.append(onward.target)
        self._drop(pair, reset=True)

    def _pair(self, pipe: _Pipe) -> tuple[_Pipe, _Pipe]:
        (pair,) = [pair for pair in self._connections if pipe in pair]
        return pair

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        far = socket.socket()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
        try:
            far.connect(self._target)
        except OSError:
            near.close()
            far.close()
            return
        for sock in (near, far):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections.append(
            (_Pipe(self.to_server, near, far), _Pipe(self.to_client, far, near))
        )

    def _set_held(self, ways: tuple[Way, ...], held: bool) -> None:
        for way in ways:
            way.held = held

    def _drop_all(self, reset: bool) -> None:
        for pair in list(self._connections):
            self._drop(pair, reset)

    def _drop(self, pair: tuple[_Pipe, _Pipe], reset: bool) -> None:
        self._connections.remove(pair)
        for pipe in pair:
            if pipe.source in self._limbo:
                continue
            if reset:
                # An end that is gone already can't be told how.
                with contextlib.suppress(OSError):
                    pipe.source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            pipe.source.close()
