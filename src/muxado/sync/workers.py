"""A cache of worker threads for the handlers of streams: starting one costs more than a request."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Generic, TypeVar

from .locks import Waiter, deadline_of

T = TypeVar("T")

IDLE_TIME = 10.0  # seconds, after which a thread without a job ends


class Workers:
    """Daemon threads, as many as there is work for at once, until `close`.

    Unlike those of `concurrent.futures` they never keep the interpreter alive, and those of a
    burst end when it is over.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        # One item for each thread that no job is meant for. The standard library's semaphore would
        # stay locked if a signal's handler raised inside of it.
        self._idle: queue.SimpleQueue[None] = queue.SimpleQueue()

    def submit(self, job: Callable[[], object]) -> None:
        """Run a job, which raises no `Exception`, in a thread that has nothing else to do.

        Raises:
            RuntimeError: no thread can be started.
        """
        if not self._take_idle():
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
                if self._take_idle():
                    return
                continue  # a job for this thread is on its way
            if job is None:
                self._jobs.put(None)  # for the others
                return
            job()
            del job  # it holds a stream
            self._idle.put(None)

    def _take_idle(self) -> bool:
        """Return whether there was a thread without a job, and count it out."""
        try:
            self._idle.get_nowait()
        except queue.Empty:
            return False
        return True


def submit_to(executor: Executor, job: Callable[[], object], dropped: Callable[[], object]) -> None:
    """Let an executor run a job, or else call `dropped`, if it cancels the job instead.

    Raises:
        RuntimeError: the executor was shut down, or has no thread; it may run the job all the same.
    """

    def check(done: Future[object]) -> None:
        if done.cancelled():
            dropped()

    executor.submit(job).add_done_callback(check)


class Running(Generic[T]):
    """The handlers that run, or the sessions, and a way to wait until there are fewer.

    A signal's handler may raise in each of its calls, and leaves no lock taken.
    """

    def __init__(self) -> None:
        self._members: set[T] = set()
        self._waiters: set[Waiter] = set()

    def add(self, member: T) -> None:
        """Count one in."""
        self._members.add(member)

    def remove(self, member: T) -> bool:
        """Count one out; return False if it had been already."""
        try:
            self._members.remove(member)
        except KeyError:
            return False
        for waiter in list(self._waiters):
            waiter.wake()
        return True

    def members(self) -> list[T]:
        """Return those that run now."""
        return list(self._members)

    def wait(self, timeout: float | None = None, *, below: int = 1) -> bool:
        """Wait until none runs; return False if that took longer than `timeout`.

        Args:
            timeout: seconds; None: as long as it takes.
            below: wait only until there are fewer than this.
        """
        deadline = deadline_of(timeout)
        waiter = Waiter()
        try:
            # First, so that no wake-up is missed between the look and the wait.
            self._waiters.add(waiter)
            while len(self._members) >= below:
                if not waiter.wait(deadline):
                    return False
            return True
        finally:
            self._waiters.discard(waiter)
