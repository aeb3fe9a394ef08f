"""Drives one core session from threads: one lock, one socket, one I/O thread.

Every call changes the core under `lock`, and then sends what there is to send itself, as far
as the socket takes it at once: no thread switch stands between a write and the wire. The I/O
thread does the rest: it reads, sends what did not fit, and looks after the timers. The socket
does not block, and is only ever touched under the lock.

The garbage collector and signals start calls in the midst of another one of the same thread,
which can't go on before they return. So such a call never waits: what changes something is left
to the I/O thread (`do`, `later`), and what asks for something is refused (`lock`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import ssl
import threading
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from ..core import CoreSession
from ..core.states import CLOSING
from ..endpoint import limit_unsent
from ..errors import ErrorCode, MuxadoError, UsageError
from .locks import Waiter, held_here, rest_of

if TYPE_CHECKING:
    from .stream_listener import StreamListener

logger: logging.Logger = logging.getLogger("muxado")

WRITE_SIZE = 64 * 1024

# Seconds that parsing waits for those who accept, when their queue is full.
ACCEPT_PAUSE = 0.05

# What a TLS socket says for "would block", besides BlockingIOError.
WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Driver:
    """Connects a core session and a socket.

    Attributes:
        core: the session; touched only while `lock` is held.
        sock: the socket.
        family: its address family.
        listener: the session as a listening socket, None if nobody has asked for that.
        lost: True once the socket is of no more use.
        gone: True once it is closed too.
    """

    def __init__(self, core: CoreSession, sock: socket.socket) -> None:
        self.core = core
        self.sock = sock
        self._secured = sock if isinstance(sock, ssl.SSLSocket) else None
        self.family: socket.AddressFamily = sock.family
        self._lock = threading.RLock()  # never taken twice; but it knows who holds it
        self.listener: weakref.ref[StreamListener] | None = None
        self.lost: bool = False
        self.gone: bool = False
        self._notify: Callable[[int], None] = _ignore
        self._unsent = memoryview(b"")
        self._output_ended = False
        self._farewell_unsent = False  # TLS's own: the socket had no room for it
        self._later: deque[Callable[[], object]] = deque()
        self._room: Waiter | None = None  # for room in the accept queue
        self._due = inf  # when the I/O thread looks at the timers
        self._blocked = False  # the I/O thread waits for the socket to take more
        self._bell, self._bell_rope = socket.socketpair()
        self._bell.setblocking(False)
        self._bell_rope.setblocking(False)
        with _forks:  # a fork under way does not miss it
            _drivers.add(self)
        sock.setblocking(False)
        if sock.family != getattr(socket, "AF_UNIX", None):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            limit_unsent(sock)
        self._thread = threading.Thread(target=self._run, name="muxado session", daemon=True)

    def start(self, notify: Callable[[int], None]) -> None:
        """Start the I/O thread. `notify` is called, under the lock, with the core's events,
        and with 0 once the socket is closed.

        Raises:
            RuntimeError: no thread can be started; the socket is still the caller's.
        """
        self._notify = notify
        try:
            self._thread.start()
        except RuntimeError:
            self._bell.close()
            self._bell_rope.close()
            self.lost = self.gone = True
            self.core.abort(ErrorCode.NO_ERROR, monotonic())
            raise

    # For the calls

    @property
    def lock(self) -> threading.RLock:
        """What protects the core and the socket, to be held during a call.

        Raises:
            UsageError: this thread is in the midst of one already.
        """
        if self.busy():
            raise UsageError(
                "a session can't be asked in the midst of another call of the same thread, as a"
                " signal's handler or a finalizer may be"
            )
        return self._lock

    def busy(self) -> bool:
        """Return whether this thread is in the midst of a call, or is one that must not wait."""
        return held_here(self._lock) or threading.get_ident() in _io_threads

    def do(self, step: Callable[..., object], *args: object) -> None:
        """Take a step of the core's, and do what it calls for; later, if a call is under way."""
        if self.busy():
            self.later(step, *args)
            return
        with self._lock:
            step(*args)
            self.settle()

    def later(self, step: Callable[..., object], *args: object) -> None:
        """Let the I/O thread take a step of the core's; needs no lock."""
        self._later.append(partial(step, *args))
        self._ring()

    # With the lock held

    def settle(self) -> None:
        """Send, wake, and set timers after a change of the core's state."""
        core = self.core
        if not self.lost:
            if core.pending() or core.state >= CLOSING:
                self._flush()
            due = core.next_deadline()
            if due < self._due or (self._wants_room() and not self._blocked):
                self._due = min(due, self._due)
                self._blocked = self._wants_room()
                self._ring()
        self._wake()

    def accepted(self) -> None:
        """Take note that a stream was accepted: there may be room for more."""
        core = self.core
        if self._room is not None and 2 * len(core.accept_queue) <= core.config.accept_backlog:
            self._room.wake()
            self._room = None
        self._show_waiting()

    def wait(self, waiter: Waiter, deadline: float | None) -> bool:
        """Give up the lock until the waiter is woken; return False if the time was up.

        It may raise too: a signal's handler may, KeyboardInterrupt for one.
        """
        self._lock.release()
        try:
            return waiter.wait(rest_of(deadline))
        finally:
            self._lock.acquire()

    def _wants_room(self) -> bool:
        """Return whether something waits for the socket to take more."""
        return bool(self._unsent) or self._farewell_unsent

    def _in_thread(self) -> bool:
        return threading.current_thread() is self._thread

    def _ring(self) -> None:
        with contextlib.suppress(OSError):
            self._bell_rope.send(b"\0")

    def _wake(self) -> None:
        core = self.core
        if core.wakes:
            for waiter in core.take_wakes():
                assert isinstance(waiter, Waiter)
                waiter.wake()
        events = core.take_events()
        if events:
            self._notify(events)
        if self.listener is not None:
            self._show_waiting()

    def _show_waiting(self) -> None:
        """Make the listener's descriptor readable or not, as streams wait or don't."""
        listener = None if self.listener is None else self.listener()
        if listener is not None:
            listener._refresh()

    def _flush(self) -> None:
        core = self.core
        try:
            while not self._output_ended:
                if not self._unsent:
                    self._unsent = memoryview(core.data_to_send(monotonic(), WRITE_SIZE))
                    if not self._unsent:
                        break
                self._unsent = self._unsent[self.sock.send(self._unsent) :]
        except WOULD_BLOCK:
            pass
        except OSError as exc:
            # What the peer said before it left is still to be read.
            with contextlib.suppress(OSError):
                while count := self.sock.recv_into(core.receive_buffer()):
                    core.bytes_received(count, monotonic())
            self._lose(exc)
            return
        if core.state >= CLOSING:
            self._end_output()

    def _end_output(self) -> None:
        core = self.core
        if core.abort_transport:
            self._lose(None)
            return
        try:
            if self._output_ended:
                if self._farewell_unsent:
                    self._half_close()
            elif core.output_done() and not self._unsent:
                self._output_ended = True
                core.end_output()
                if core.eof_received:
                    self._lose(None)
                else:
                    # Reading goes on: a close with unread input would reset the connection,
                    # and destroy what the peer has not read yet.
                    self._half_close()
        except OSError as exc:
            self._lose(exc)

    def _half_close(self) -> None:
        self._farewell_unsent = False
        if self._secured is not None:
            try:
                self._secured.unwrap()  # sends close_notify
            except ssl.SSLWantWriteError:
                self._farewell_unsent = True
                return
            except ssl.SSLError:
                pass  # the peer's own is not here yet, or comes after data
        # From here on a TLS socket gives what comes undecrypted.
        self.sock.shutdown(socket.SHUT_WR)

    def _lose(self, exc: BaseException | None) -> None:
        if self.lost:
            return
        self.lost = True
        self.core.connection_lost(exc, monotonic())
        self._wake()
        if not self._in_thread():
            self._ring()

    # The I/O thread

    def _run(self) -> None:
        _io_threads.add(threading.get_ident())
        failure: BaseException | None = None
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._bell, selectors.EVENT_READ)
                mask = 0
                while not self.lost:
                    if self.core.held:
                        self._let_accept()
                    with self._lock:
                        # Input that has ended stays readable for ever.
                        wanted = 0 if self.core.eof_received else selectors.EVENT_READ
                        self._blocked = self._wants_room()
                        if self._blocked:
                            wanted |= selectors.EVENT_WRITE
                        self._due = self.core.next_deadline()
                        more = self.core.held or self._decrypted()
                    if wanted != mask:
                        if mask:
                            selector.unregister(self.sock)
                        if wanted:
                            selector.register(self.sock, wanted)
                        mask = wanted
                    timeout = 0.0 if more else max(0.0, self._due - monotonic())
                    events = selector.select(None if timeout == inf else timeout)
                    with self._lock:
                        self._turn({key.fileobj for key, _ in events})
        except BaseException as exc:
            failure = exc  # a fault of ours, or of a socket's of the user's making
            raise
        finally:
            with self._lock:
                self._lose(failure)
            self._close_sockets()
            with self._lock:
                self.gone = True
                self._notify(0)
            _io_threads.discard(threading.get_ident())

    def _let_accept(self) -> None:
        """Give those a turn who accept, in threads of their own, before streams are refused."""
        core = self.core
        with self._lock:
            if not core.held or len(core.accept_queue) < core.config.accept_backlog:
                return
            waiter = self._room = Waiter()
        waiter.wait(ACCEPT_PAUSE)
        with self._lock:
            self._room = None

    def _turn(self, ready: set[object]) -> None:
        if self.lost:
            return
        core = self.core
        if self._bell in ready:
            with contextlib.suppress(OSError):
                self._bell.recv(4096)
        while self._later:
            try:
                self._later.popleft()()
            except MuxadoError as exc:
                logger.info("a call that had to be put off failed: %s", exc)
        if core.held:
            core.resume(monotonic())
        if self.sock in ready or self._decrypted():
            self._read()
        if monotonic() >= core.next_deadline():
            core.handle_timer(monotonic())
        if not self.lost:
            self._flush()
        self._wake()

    def _read(self) -> None:
        core = self.core
        try:
            count = self.sock.recv_into(core.receive_buffer())
            while count and self._decrypted() and not core.held:
                core.bytes_received(count, monotonic())
                count = self.sock.recv_into(core.receive_buffer())
        except WOULD_BLOCK:
            return
        except OSError as exc:
            self._lose(exc)
            return
        if count:
            core.bytes_received(count, monotonic())
            return
        core.receive_eof(monotonic())
        if self._output_ended:
            self._lose(None)

    def _decrypted(self) -> bool:
        """Return whether the socket has decrypted bytes already, which no selector sees."""
        return self._secured is not None and self._secured.pending() > 0

    def _close_sockets(self) -> None:
        for sock in (self.sock, self._bell, self._bell_rope):
            sock.close()

    def forget_in_child(self) -> None:
        """Leave the session to the parent process, after a fork."""
        self.lost = self.gone = True
        self._close_sockets()
        listener = None if self.listener is None else self.listener()
        if listener is not None:  # or the child's accept() eats the parent's byte
            listener._close_descriptor()
        core = self.core
        core.closed_here = True  # even what has come is the parent's to read
        core.accept_queue.clear()
        message = "the session belongs to the parent process"
        core.connection_lost(ConnectionError(message), monotonic())


def _ignore(events: int) -> None:
    pass


# The threads that all others wait for, so they wait for none.
_io_threads: set[int] = set()

_drivers: weakref.WeakSet[Driver] = weakref.WeakSet()
_forking: list[Driver] = []


def _before_fork() -> None:
    # With their locks held, the sessions are not copied in the middle of a change.
    _forks.acquire()
    for driver in list(_drivers):
        driver._lock.acquire()
        _forking.append(driver)


def _after_fork_in_parent() -> None:
    while _forking:
        _forking.pop()._lock.release()
    _forks.release()


def _after_fork_in_child() -> None:
    _io_threads.clear()
    for driver in _forking:
        driver.forget_in_child()
    _after_fork_in_parent()


# Held while a fork is under way. A signal's handler may fork in the midst of anything.
_forks = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
