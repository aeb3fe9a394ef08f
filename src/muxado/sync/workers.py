"""A cache of worker threads for the handlers of streams: starting one costs more than a request."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from time import monotonic
from typing import Generic, TypeVar

from .crowd import Member
from .driver import Driver
from .locks import Waiter, deadline_of

T = TypeVar("T")

IDLE_TIME = 10.0  # seconds, after which a thread without a job ends


class Worker(Member):
    """A thread that waits for a job.

    Attributes:
        job: what it is to do when it is woken; None: nothing, or to end.
    """

    __slots__ = ("job",)

    job: Callable[[], object] | None


class Workers:
    """Daemon threads, as many as there is work for at once, until `close`.

    Unlike those of `concurrent.futures` they never keep the interpreter alive, and those of a
    burst end when it is over.

    Args:
        name: what the threads are called.
        driver: wakes them.
    """

    def __init__(self, name: str, driver: Driver) -> None:
        self._name = name
        self._driver = driver
        self._idle: deque[Worker] = deque()
        self._closed = False

    def submit(self, job: Callable[[], object], failed: Callable[[RuntimeError], object]) -> None:
        """Run a job, which raises no `Exception`, in a thread that has nothing else to do.

        Args:
            job: what to run.
            failed: is called instead, without the driver's lock, if no thread can be started.
        """
        try:
            worker = self._idle.pop()  # the one whose memory is the warmest
        except IndexError:
            self._driver.call_soon(partial(self._start, job, failed))
            return
        worker.job = job
        self._driver.wake(worker)

    def _start(self, job: Callable[[], object], failed: Callable[[RuntimeError], object]) -> None:
        """Start a thread, without the driver's lock.

        `Thread.start` waits for the new thread, and before that says it has started the garbage
        collector may run in it, and close a stream, which takes the lock.
        """
        work = partial(self._work, job)
        try:
            threading.Thread(target=work, name=self._name, daemon=True).start()
        except RuntimeError as exc:
            failed(exc)

    def close(self) -> None:
        """Let the threads end when they are done."""
        self._closed = True
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().wake()

    def _work(self, job: Callable[[], object] | None) -> None:
        worker = Worker(self._driver.crowd)
        while job is not None:
            job()
            job = worker.job = None  # it holds a stream
            self._idle.append(worker)
            if self._closed:
                self.close()
            while not worker.wait(monotonic() + IDLE_TIME):
                with contextlib.suppress(ValueError):  # it has a job that is on its way
                    self._idle.remove(worker)
                    return
            job = worker.job


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

    def __len__(self) -> int:
        return len(self._members)

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
