"""Threads for the handlers of streams, used again: starting one costs more than a request."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class Workers:
    """Daemon threads, as many as there was ever work for at once, until `close`.

    Unlike those of `concurrent.futures` they never keep the interpreter alive.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._count = 0

    def submit(self, job: Callable[[], object]) -> None:
        """Run a job, which raises no `Exception`, in a thread that has nothing else to do.

        Raises:
            RuntimeError: no thread can be started.
        """
        if not self._idle.acquire(blocking=False):
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
            self._count += 1
        self._jobs.put(job)

    def close(self) -> None:
        """Let the threads end when they are done."""
        for _ in range(self._count):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job  # it holds a stream
            self._idle.release()


class Countdown:
    """Counts what is under way, and waits until nothing is."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._count = 0

    def up(self) -> None:
        """Count one more."""
        with self._condition:
            self._count += 1

    def down(self) -> None:
        """Count one less."""
        with self._condition:
            self._count -= 1
            self._condition.notify_all()

    def wait(self) -> None:
        """Wait until nothing is under way."""
        with self._condition:
            self._condition.wait_for(lambda: self._count == 0)
