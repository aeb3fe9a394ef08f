"""Calls interrupted by a real timer: `python -m tests.reliability.interrupted --seconds N`.

The main thread uses a session, beside another thread that uses it too, while SIGALRM's handler
raises again and again. Afterwards every byte is looked at: the peer has read what was sent, once
and in order, or the session has ended with an error that both threads see.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import signal
import socket
import sys
import threading
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

import muxado
from muxado import sync
from muxado.build import COMPILED
from tests.patience import patience

PATIENCE = patience(20)
SIZE = 8  # of the numbers that are written
# The longest time until the next interruption, in seconds.
LONGEST = 0.002


class Interrupt(BaseException):
    """What the handler raises."""


class Run:
    """One run.

    Attributes:
        counts: how many sessions, interruptions, and sessions that were ended by one.
    """

    def __init__(self, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self._dice = random.Random(seed)
        self._armed = False
        self._pool = ThreadPoolExecutor(8)
        signal.signal(signal.SIGALRM, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._armed:
            self._armed = False
            self.counts["interruptions"] += 1
            raise Interrupt

    def session(self) -> None:
        """Use one session until an interruption has ended it, or for a while."""
        self.counts["sessions"] += 1
        near, far = socket.socketpair()
        client, server = sync.client(near), sync.server(far)
        readers = [self._pool.submit(self._read, server) for _ in range(2)]
        mine, other = client.open(eager=True), client.open(eager=True)
        mine.settimeout(PATIENCE)
        stop = threading.Event()
        bystander = self._pool.submit(self._write, other, stop)
        for number in itertools.count():
            if number == 300 or client.closed:
                break
            self._interrupted(client, mine, number)
        stop.set()
        written = bystander.result(PATIENCE)
        alive = not client.closed
        if alive:
            self._pool.submit(client.ping, PATIENCE).result(PATIENCE)
            self._pool.submit(mine.write_eof).result(PATIENCE)
        self._pool.submit(client.close).result(PATIENCE)
        self._pool.submit(client.wait_closed, PATIENCE).result(PATIENCE)
        results = [reader.result(PATIENCE) for reader in readers]
        if alive and (None in results or written not in results):
            raise AssertionError(f"the session lives, but {written} numbers became {results}")
        if not alive:
            self.counts["ended"] += 1
        server.abort()
        self._pool.submit(server.wait_closed, PATIENCE).result(PATIENCE)

    def _interrupted(self, client: sync.Session, stream: sync.Stream, number: int) -> None:
        """Make one call, which the timer may interrupt wherever it likes."""
        # The outer one is for an interruption that comes while the inner one's error is handled.
        with contextlib.suppress(Interrupt):
            try:
                self._armed = True
                signal.setitimer(signal.ITIMER_REAL, self._dice.uniform(1e-6, LONGEST))
                self._call(client, number)
                # Both ends of what is written are looked at: a number comes once or not at all.
                stream.sendall(number.to_bytes(SIZE, "big"))
            except muxado.MuxadoError:
                self._armed = False
                if not client.closed:
                    raise
            finally:
                self._armed = False

    def _call(self, client: sync.Session, number: int) -> None:
        match number % 4:
            case 0:
                client.ping(PATIENCE)
            case 1:
                client.open(eager=True).close()
            case 2:
                with contextlib.suppress(TimeoutError):
                    client.accept(0.001)
            case _:
                with client.open() as another:
                    another.sendall(b"x")

    def _write(self, stream: sync.Stream, stop: threading.Event) -> int:
        """Write numbers in another thread until told to stop; return how many."""
        number = 0
        try:
            while not stop.is_set():
                stream.sendall(number.to_bytes(SIZE, "big"))
                number += 1
                time.sleep(0)
            stream.write_eof()
        except muxado.SessionError:
            return -1
        return number

    def _read(self, server: sync.Session) -> int | None:
        """Read the numbers of a stream to its end; return how many, None after an error."""
        stream = server.accept(PATIENCE)
        data = b""
        error = False
        try:
            while piece := stream.recv(65536):
                data += piece
        except muxado.MuxadoError:
            error = True
        numbers = [int.from_bytes(data[at : at + SIZE], "big") for at in range(0, len(data), SIZE)]
        whole = numbers[: len(data) // SIZE]
        if whole != sorted(set(whole)):
            raise AssertionError(f"numbers came twice, or out of order: {whole}")
        return None if error else len(numbers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    run = Run(options.seed)
    warnings.simplefilter("ignore", ResourceWarning)  # what an interrupted open() has made
    # The interpreter swallows what a handler raises inside a finalizer.
    sys.unraisablehook = lambda _: run.counts.update(["swallowed"])
    died: list[threading.ExceptHookArgs] = []
    threading.excepthook = died.append
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        run.session()
    if died:
        raise SystemExit(f"{len(died)} threads died, the first of {died[0].exc_value!r}")
    core = "compiled" if COMPILED else "pure"
    print(f"{core} core:", ", ".join(f"{count} {what}" for what, count in run.counts.items()))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
