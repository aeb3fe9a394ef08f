"""A long link in user space: delays what passes, and lets through only so much per second.

It runs as a process of its own between client and server:

    python -m benchmarks.relay --round-trip-ms 100 --rate-mbit 400 --target 4000

Each direction is a link with a rate, a delay (half the round trip), and a queue in front of it
that holds one bandwidth-delay product. A full queue is not read from, as TCP needs it: nothing
is ever lost. A line like "40 100" on stdin makes it a link of 40 ms and 100 Mbit/s, with the same
queue.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import socket
import sys
from collections import deque
from dataclasses import dataclass, field
from time import monotonic

HOST = "127.0.0.1"
READ_SIZE = 16 * 1024
# Little may hide in the kernel in front of the queue that is being emulated.
KERNEL_BUFFER = 128 * 1024


@dataclass
class Link:
    """One direction of the line, shared by all connections.

    Attributes:
        rate: bytes per second.
        delay: seconds one way.
        queue: bytes that may wait for their turn.
        free_at: when everything taken so far will have left.
    """

    rate: float
    delay: float
    queue: int
    free_at: float = 0.0

    @property
    def portion(self) -> int:
        """How many bytes are taken at a time."""
        return max(1, min(READ_SIZE, self.queue // 4))

    def room_at(self) -> float:
        """Return since when, or from when on, the queue takes another portion."""
        return self.free_at - (self.queue - self.portion) / self.rate

    def take(self, size: int, now: float) -> float:
        """Take bytes into the queue; return when they arrive at the other end."""
        self.free_at = max(now, self.free_at) + size / self.rate
        return self.free_at + self.delay


@dataclass
class Pipe:
    """What one connection has under way in one direction."""

    link: Link
    source: socket.socket
    target: socket.socket
    waiting: deque[tuple[float, bytes]] = field(default_factory=deque)
    held: int = 0
    ended: bool = False  # the source has ended
    finished: bool = False  # and so has the target

    def wants_input(self, now: float) -> bool:
        """Return whether the source should be read."""
        flight = self.link.queue + int(self.link.delay * self.link.rate) + READ_SIZE
        return not self.ended and self.held < flight and self.link.room_at() <= now

    def read(self, now: float) -> None:
        """Read a portion."""
        try:
            data = self.source.recv(self.link.portion)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.ended = not data
        self.held += len(data)
        self.waiting.append((self.link.take(len(data), now), data))

    def write(self, now: float) -> None:
        """Hand over what has arrived."""
        try:
            while self.waiting and self.waiting[0][0] <= now:
                due, data = self.waiting[0]
                if not data:
                    self.waiting.popleft()
                    self.finished = True
                    self.target.shutdown(socket.SHUT_WR)
                    return
                sent = self.target.send(data)
                self.held -= sent
                if sent < len(data):
                    self.waiting[0] = (due, data[sent:])
                    return
                self.waiting.popleft()
        except BlockingIOError:
            return
        except OSError:
            self.waiting.clear()
            self.held = 0
            self.ended = self.finished = True


class Relay:
    """Accepts connections, and carries each to the target over the line."""

    def __init__(self, listener: socket.socket, target: int, up: Link, down: Link) -> None:
        self._listener = listener
        self._target = target
        self._up = up
        self._down = down
        self._pipes: list[Pipe] = []

    def run(self) -> None:
        """Relay until stdin ends."""
        while True:
            now = monotonic()
            reading: dict[socket.socket, Pipe] = {}
            writing: dict[socket.socket, Pipe] = {}
            wake = now + 1.0
            for pipe in self._pipes:
                if pipe.wants_input(now):
                    reading[pipe.source] = pipe
                elif not pipe.ended:
                    wake = min(wake, max(now + 0.0002, pipe.link.room_at()))
                if pipe.waiting:
                    due = pipe.waiting[0][0]
                    if due <= now:
                        writing[pipe.target] = pipe
                    wake = min(wake, max(due, now + 0.0002))
            readable, _, _ = select.select(
                [sys.stdin, self._listener, *reading],
                list(writing),
                [],
                max(0.0, wake - monotonic()),
            )
            now = monotonic()
            if sys.stdin in readable:
                line = os.read(sys.stdin.fileno(), 64)
                if not line:
                    return
                self._become(*map(float, line.split()))
            if self._listener in readable:
                self._accept()
            for sock, pipe in reading.items():
                if sock in readable:
                    pipe.read(now)
            for pipe in self._pipes:
                pipe.write(now)
            self._forget()

    def _become(self, round_trip_ms: float, rate_mbit: float) -> None:
        for link in (self._up, self._down):
            link.delay = round_trip_ms / 2000
            link.rate = rate_mbit * 1e6 / 8

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        far = socket.socket()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
        far.connect((HOST, self._target))
        for sock in (near, far):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pipes += [Pipe(self._up, near, far), Pipe(self._down, far, near)]

    def _forget(self) -> None:
        for one, other in zip(self._pipes[::2], self._pipes[1::2], strict=True):
            if one.finished and other.finished:
                self._pipes.remove(one)
                self._pipes.remove(other)
                with contextlib.suppress(OSError):
                    one.source.close()
                    one.target.close()
                return


def main() -> None:
    """Run the relay as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--target", type=int, required=True, help="the server's port")
    parser.add_argument("--round-trip-ms", type=float, default=100.0)
    parser.add_argument("--rate-mbit", type=float, default=400.0)
    parser.add_argument("--queue", type=int, help="bytes (one bandwidth-delay product)")
    parser.add_argument("--limit", type=int, default=60, help="seconds after which it ends")
    args = parser.parse_args()
    signal.alarm(args.limit)
    rate = args.rate_mbit * 1e6 / 8
    queue = args.queue or int(rate * args.round_trip_ms / 1000)
    up, down = (Link(rate, args.round_trip_ms / 2000, queue) for _ in range(2))
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
    listener.bind((HOST, 0))
    listener.listen()
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    Relay(listener, args.target, up, down).run()


if __name__ == "__main__":
    main()
