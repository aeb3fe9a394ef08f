"""Threads for the handlers of streams, used again: starting one costs more than a request."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Generic, TypeVar

T = TypeVar("T")

IDLE_TIME = 10.0  # seconds, after which a thread that nothing was found for ends


class Workers:
    """Daemon threads, as many as there is work for at once, until `close`.

    Unlike those of `concurrent.futures` they never keep the interpreter alive, and those of a
    burst end when it is over.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)  # counts the threads that no job is meant for

    def submit(self, job: Callable[[], object]) -> None:
        """Run a job, which raises no `Exception`, in a thread that has nothing else to do.

        Raises:
            RuntimeError: no thread can be started.
        """
        if not self._idle.acquire(blocking=False):
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        self._jobs.put(job)

    def close(self) -> None:
        """Let the threads end when they are done."""
        self._jobs.put(None)

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=IDLE_TIME)
            except queue.Empty:
                if self._idle.acquire(blocking=False):
                    return
                continue  # a job for this thread is on its way
            if job is None:
                self._jobs.put(None)  # for the others
                return
            job()
            del job  # it holds a stream
            self._idle.release()


def submit_to(executor: Executor, job: Callable[[], object], dropped: Callable[[], object]) -> None:
    """Let an executor run a job, or else call `dropped`, if it cancels the job instead.

    Raises:
        RuntimeError: the executor was shut down, or has no thread; it may run the job all the same.
    """

    def settle(done: Future[object]) -> None:
        if done.cancelled():
            dropped()

    executor.submit(job).add_done_callback(settle)


class Running(Generic[T]):
    """What is under way, and the wait until nothing is."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._members: set[T] = set()

    def add(self, member: T) -> None:
        """Count one in."""
        with self._changed:
            self._members.add(member)

    def remove(self, member: T) -> bool:
        """Count one out; return False if it had been already."""
        with self._changed:
            if member not in self._members:
                return False
            self._members.remove(member)
            self._changed.notify_all()
            return True

    def members(self) -> list[T]:
        """Return what is under way now."""
        with self._changed:
            return list(self._members)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is under way; return False if that took longer than `timeout`."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._members, timeout)
