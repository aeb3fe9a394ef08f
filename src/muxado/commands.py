"""Commands that carry a session: `ssh host program`, `docker exec -i`, `kubectl exec -i`.

How it works. One end of a pair of Unix sockets is the command's standard input and output, and the
other one carries the session, as fast as any socket does. A thread waits for the command to exit,
so that it never stays a zombie and its exit status is known. When the session is over, its end of
the pair is closed. A command that goes on all the same is sent SIGTERM after a while, and SIGKILL
after another one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence

from . import forks
from .errors import UsageError

__all__ = ["Command", "CommandEnded", "check_command"]

# Seconds until the exit status of a command that has closed its output is not waited for any more.
STATUS_WAIT = 1.0


class CommandEnded(ConnectionError):
    """The command that carried a session has ended with an error.

    It is the `exception` of the session's `CloseReason`.

    Attributes:
        returncode: its exit status; if a signal has ended it, the signal's number below 0.
    """

    errno: int | None = errno.ECONNRESET

    def __init__(self, program: str, returncode: int) -> None:
        how = f"exit status {returncode}"
        if returncode < 0:
            with contextlib.suppress(ValueError):
                how = signal.Signals(-returncode).name
        super().__init__(f"the command {program!r} has ended with {how}")
        self.returncode: int = returncode


def check_command(command: object) -> tuple[str, ...] | None:
    """Return a command's program and arguments.

    Raises:
        UsageError: they can't be, or this system can't run it so.
    """
    if command is None:
        return None
    if isinstance(command, str | bytes) or not isinstance(command, Sequence) or not command:
        raise UsageError(f"command= must be a list of a program and its arguments, not {command!r}")
    try:
        found = tuple(map(os.fsdecode, command))
    except TypeError:
        raise UsageError(f"command= must be a list of strings, not {command!r}") from None
    if not found[0] or any("\0" in each for each in found):
        raise UsageError(f"command= can't be run: {command!r}")
    if not hasattr(socket, "AF_UNIX"):
        raise UsageError("command= needs Unix sockets, which this system doesn't have")
    return found


class Command:
    """A command that runs, and the socket of its standard input and output.

    Its standard error is this process's.

    Args:
        command: the program and its arguments.
        grace: seconds until it is sent SIGTERM when it is not wanted any more, and again until
            SIGKILL.

    Attributes:
        sock: this side's end.

    Raises:
        OSError: it can't be started.
    """

    def __init__(self, command: Sequence[str], grace: float) -> None:
        self._program = command[0]
        self._grace = grace
        self._exited = threading.Event()
        self._released = False
        self._lock = threading.Lock()  # for the callbacks
        self._callbacks: list[Callable[[], object]] = []
        ours, theirs = socket.socketpair()
        self.sock: socket.socket = ours
        with theirs:
            try:
                forks.guard(self.sock)
                number = theirs.fileno()
                self._process = subprocess.Popen(  # noqa: S603  # what the caller wants
                    command, stdin=number, stdout=number
                )
            except BaseException:
                self.sock.close()
                raise
        try:
            self._start(self._wait)
        except BaseException:
            self.sock.close()
            self._process.kill()
            self._process.wait()
            raise

    def on_exit(self, callback: Callable[[], object]) -> None:
        """Call this once the command has ended, in another thread, or at once."""
        with self._lock:
            if not self._exited.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def wait_failure(self) -> CommandEnded | None:
        """Wait for a command that has closed its output; return the error it has ended with.

        Returns:
            None if there was none, or the command goes on.
        """
        self._exited.wait(STATUS_WAIT)
        return self.failure()

    def failure(self) -> CommandEnded | None:
        """Return the error it has ended with, None if there was none, or the command goes on."""
        status = self._process.returncode if self._exited.is_set() else 0
        return CommandEnded(self._program, status) if status else None

    def release(self) -> None:
        """See to its end, now that its socket is closed. Harmless if repeated."""
        if not self._released:
            self._released = True
            if not self._exited.is_set():
                with contextlib.suppress(RuntimeError):  # no thread can be started
                    self._start(self._end)

    def _start(self, work: Callable[[], None]) -> None:
        threading.Thread(target=work, name="muxado command", daemon=True).start()

    def _wait(self) -> None:
        self._process.wait()
        with self._lock:
            self._exited.set()
        for callback in self._callbacks:
            callback()

    def _end(self) -> None:
        for stop in (self._process.terminate, self._process.kill):
            if self._exited.wait(self._grace):
                return
            stop()
