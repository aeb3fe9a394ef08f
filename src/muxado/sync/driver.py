"""Drives one core session from threads: one lock, one socket, one I/O thread.

How it works. A call takes a *step*: with the lock held it changes the core, and then sends what
the socket takes at once (`flush`), so that no thread switch stands between a write and the wire.
The I/O thread does the rest. It waits in a selector for input, for room in the socket, for the
next timer, and for a byte on the wakeup pair, by which other threads make it look again. The
socket does not block, and is only touched with the lock held. A call that has to wait leaves a
`Waiter` with the core, releases the lock, and sleeps; `_report` wakes it. Threads that one read
has woken together are a `Crowd`: the last of them sends what all of them have to say.

Calls inside calls. The garbage collector and signals start calls inside another call of the same
thread, which can't go on before they return. Such a call must not wait. If it changes something,
the I/O thread does that for it (`do`, `later`); if it asks for something, it raises (`lock`).

Calls that are cut off. A signal's handler may raise anywhere in the main thread, as Ctrl-C does.
A step that is cut off there must not be repeated, or bytes would be sent twice, and it must not
count as done. So:

- The lock is taken by a `with` on the bare lock and nothing else. The interpreter runs no handler
  between taking it and the block, nor before giving it back: it never stays locked.
- Each step sets `changing` before its first change, and clears it after the last one. A thread
  that takes the lock and finds `changing` set knows that a step was cut off: it ends the session
  (`collapse`), and what the core knows is not used any more. An error that the core raises on
  purpose cuts nothing off (`cut_off` tells the two apart): the core has changed nothing then.
- The I/O thread is woken when a step is cut off, so that the session ends at once, for the peer
  and for the other threads too, though no further call comes. No handler runs in that thread.
- While a call waits it holds no lock and leaves no change half done, so an exception that comes
  then does no harm. The waiters of all calls that wait are in `sleepers`. A waiter that a cut-off
  call has left elsewhere is not in there, and is ignored.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf
from time import monotonic, sleep
from typing import NoReturn, TypeVar

from .. import forks
from ..admission import refuse
from ..core import ENDING, NOTHING, CoreSession, CoreStream
from ..errors import ErrorCode, MuxadoError, UsageError
from ..front_end import BaseDriver, call_logged
from ..layers import Layer
from ..registry import SessionRecord
from .crowd import GATHER_TIME, Crowd, Member
from .link import SocketLink
from .locks import LONGEST_SELECT, Waiter, calling_back, from_a_handler, holder_test, is_ours

T = TypeVar("T")

logger: logging.Logger = logging.getLogger("muxado")

# Seconds that parsing waits for threads that accept, when the queue of streams is full.
ACCEPT_PAUSE = 0.05

# Seconds after which a stream that was dropped unclosed is reset. A reset discards what the peer
# has not read yet, and the last bytes are often still on their way.
DROPPED_GRACE = 0.1


class Callback:
    """Has the I/O thread call a function, when the core wakes it in the place of a thread.

    Like the waiters of threads it is one of the driver's `sleepers` until then.
    """

    __slots__ = ("_call_soon", "_callback", "_sleepers", "thread")

    def __init__(self, driver: Driver, callback: Callable[[], object]) -> None:
        self.thread: int = -1  # no thread waits
        self._call_soon = driver.call_soon
        self._sleepers = driver.sleepers
        self._callback = callback
        driver.sleepers.add(self)

    def wake(self) -> None:
        """Have it called, once."""
        if self in self._sleepers:
            self._sleepers.discard(self)
            self._call_soon(self._callback)


class Driver(BaseDriver):
    """Connects a core session and a socket.

    Attributes:
        core: the session; touched only while `lock` is held.
        record: what this process knows of the session besides.
        link: moves the bytes between the core and the socket.
        lost: True once the socket is of no more use.
        gone: True once it is closed too.
        changing: True while a step changes the core. If the lock is free, the step was cut off.
        crowd: the threads that the last read has woken, and that go on.
        sleepers: the waiters of all threads that wait for something, and the callbacks that do.
    """

    def __init__(
        self,
        core: CoreSession,
        sock: socket.socket,
        record: SessionRecord,
        layer: Layer | None = None,
    ) -> None:
        self.core = core
        self.record: SessionRecord = record
        self._lock = threading.RLock()  # never taken twice; but it knows who holds it
        self._held_here = holder_test(self._lock)
        self.lost: bool = False
        self.gone: bool = False
        self.changing: bool = False
        self._collapsed = False
        self.sleepers: set[Waiter | Callback] = set()
        self.crowd: Crowd = Crowd()
        self._turning = False  # the I/O thread is in its turn
        self._tell: Callable[[int], None] = _ignore
        self._show_waiting: Callable[[], object] | None = None
        self._later: deque[Callable[[], object]] = deque()
        self._callbacks: deque[Callable[[], object]] = deque()  # of the program's
        self._dropped: deque[tuple[float, CoreStream]] = deque()  # with the time of their reset
        self._room: Waiter | None = None  # for room in the accept queue
        self._due = inf  # when the I/O thread looks at the timers
        self._blocked = False  # the I/O thread waits for the socket to take more
        self._wakeup, self._wakeup_send = socket.socketpair()
        self._wakeup.setblocking(False)
        self._wakeup_send.setblocking(False)
        self.link: SocketLink = SocketLink(core, sock, layer, self._lose)
        forks.watch(self, self._lock)
        self._thread = threading.Thread(target=self._run, name="muxado session", daemon=True)

    def start(self, notify: Callable[[int], None]) -> None:
        """Start the I/O thread. `notify` is called, under the lock, with the core's events,
        and with 0 once the socket is closed.

        Raises:
            RuntimeError: no thread can be started; the socket is still the caller's.
        """
        self._tell = notify
        try:
            self._thread.start()
        except RuntimeError:
            self._wakeup.close()
            self._wakeup_send.close()
            self.lost = self.gone = True
            self.core.abort(ErrorCode.INTERNAL_ERROR, monotonic())
            raise

    # For the calls

    @property
    def lock(self) -> threading.RLock:
        """What protects the core and the socket, to be held during a call.

        Raises:
            UsageError: this thread is inside one already.
        """
        if self.busy():
            raise UsageError(
                "this session is busy in this thread: signal handlers and finalizers can only"
                " close, abort, reset or send"
            )
        return self._lock

    def busy(self) -> bool:
        """Return whether this thread is inside a call, or is one that must not wait."""
        return self._held_here() or threading.get_ident() in _io_threads

    def ask(self, step: Callable[..., T], *args: object) -> T:
        """Take a step, and return what it gives. What it changes is for the step itself to flush.

        Raises:
            UsageError: this thread is inside a call already.
            SessionError: a step was cut off earlier.
        """
        with self.lock:
            if self.changing:
                self.collapse()
            self.changing = True
            try:
                result = step(*args)
            except BaseException as exc:
                self.cut_off(exc)
                raise
            self.changing = False
        return result

    def do(self, step: Callable[..., object], *args: object) -> None:
        """Take a step of the core's, and do what it calls for; later, if a call is under way."""
        if self.busy():
            self.later(step, *args)
            return
        with self._lock:
            if self.changing:
                self._give_up()
                return
            self.changing = True
            try:
                step(*args)
                self.flush()
            except BaseException as exc:
                self.cut_off(exc)
                raise
            self.changing = False

    def until(self, test: Callable[[Waiter], bool], deadline: float | None) -> None:
        """Take a step again and again until it gives True, and wait in between.

        Args:
            test: is given what it has to put where it is woken.
            deadline: when to give up, by `time.monotonic()`; None: never.

        Raises:
            TimeoutError: the time was up.

        Otherwise it raises as `ask`, and what `test` raises.
        """
        waiter = self.new_waiter()
        try:
            while not self.ask(test, waiter):
                if not waiter.wait(deadline):
                    raise TimeoutError("timed out")
        finally:
            self.sleepers.discard(waiter)

    def new_waiter(self) -> Waiter:
        """Return something that lets this thread wait; one of the `sleepers` from now on."""
        waiter = Member(self.crowd)
        self.sleepers.add(waiter)
        return waiter

    def later(self, step: Callable[..., object], *args: object) -> None:
        """Let the I/O thread take a step of the core's; needs no lock."""
        self._later.append(partial(step, *args))
        self._wake_thread()

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Let the I/O thread call a function of the program's, without the lock.

        Once that has ended with its session, a thread of its own does.
        """
        self._callbacks.append(callback)
        if self._in_thread():
            return
        if self.gone:
            threading.Thread(target=self._call_back, name="muxado callback", daemon=True).start()
        else:
            self._wake_thread()

    def refuse(self) -> None:
        """End a session that its server has no room for."""
        self.do(refuse, self.core, monotonic())

    def abandon(self, stream: CoreStream) -> None:
        """Reset a stream that was dropped unclosed, after `DROPPED_GRACE`; needs no lock."""
        self._dropped.append((monotonic() + DROPPED_GRACE, stream))
        self._wake_thread()

    # Everything from here on is called with the lock held, except the thread's own methods

    def show_waiting(self, show: Callable[[], object]) -> None:
        """Have `show` called whenever streams may have begun or ceased to wait for `accept`."""
        self._show_waiting = show

    def cut_off(self, exc: BaseException) -> None:
        """Take note of an exception that has left a step: an error of the core's, or a cut."""
        if isinstance(exc, (MuxadoError, OSError, TypeError, ValueError)) and is_ours(exc):
            self.changing = False
        else:
            self._wake_thread()

    def collapse(self) -> NoReturn:
        """End the session because a step was cut off, and raise its error."""
        self._give_up()
        raise self.core.ledger.failure()

    def _give_up(self) -> None:
        if self._collapsed:
            return
        self.core.abandon("an exception from outside, such as a signal's, cut a call off half way")
        self.lost = True
        self._notify(ENDING)
        for waiter in list(self.sleepers):
            waiter.wake()
        if self._show_waiting is not None:
            self._show_waiting()
        self._wake_thread()
        self._collapsed = True  # last: if this is cut off too, the next call repeats it

    def flush(self) -> None:
        """Send, wake, and set timers after a change of the core's state.

        While a crowd of threads goes on, the last of them does it for all, or the I/O thread.
        """
        if self.crowd.gathers() and not self.lost:
            self.crowd.put_off = True
            return
        core = self.core
        if not self.lost:
            if core.closing.output_step() != NOTHING:
                self.link.send()
            due = core.next_deadline()
            if due < self._due or (self.link.wants_room() and not self._blocked):
                self._due = min(due, self._due)
                self._blocked = self.link.wants_room()
                self._wake_thread()
        self._report()

    def accepted(self) -> None:
        """Take note that a stream was accepted: there may be room for more."""
        core = self.core
        if (
            self._room is not None
            and 2 * core.table.acceptable <= core.ledger.config.accept_backlog
        ):
            self._room.wake()
            self._room = None
        if self._show_waiting is not None:
            self._show_waiting()

    def _in_thread(self) -> bool:
        return threading.current_thread() is self._thread

    def _wake_thread(self) -> None:
        try:
            self._wakeup_send.send(b"\0")
        except OSError as exc:
            if from_a_handler(exc):
                raise

    def _report(self) -> None:
        super()._report()
        if self._show_waiting is not None:
            self._show_waiting()

    def wake(self, waiter: Waiter | Callback) -> None:
        """Wake a thread, in its turn if the I/O thread has several to wake."""
        if self._turning and isinstance(waiter, Member):
            self.crowd.add(waiter)
        else:
            waiter.wake()

    _wake = wake

    def _notify(self, events: int) -> None:
        self._tell(events)

    def _lose(self, exc: BaseException | None) -> None:
        if self.lost:
            return
        self.lost = True
        self.core.connection_lost(exc, monotonic())
        self._report()
        if not self._in_thread():
            self._wake_thread()

    # The I/O thread

    def _run(self) -> None:
        _io_threads.add(threading.get_ident())
        failure: BaseException | None = None
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._wakeup, selectors.EVENT_READ)
                mask = 0
                while not self.lost:
                    if self.core.paused:
                        self._let_accept()
                    with self._lock:
                        if self.changing:
                            self._give_up()
                            break
                        wanted = selectors.EVENT_READ if self.link.reads() else 0
                        self._blocked = self.link.wants_room()
                        if self._blocked:
                            wanted |= selectors.EVENT_WRITE
                        self._due = self.core.next_deadline()
                        if self._dropped:
                            self._due = min(self._due, self._dropped[0][0])
                        gathers = self.crowd.gathers()
                        more = (
                            gathers
                            or self.core.paused
                            or self.link.decrypted()
                            or bool(self._callbacks)
                        )
                    if gathers:
                        sleep(GATHER_TIME)
                    if wanted != mask:
                        if mask:
                            selector.unregister(self.link.sock)
                        if wanted:
                            selector.register(self.link.sock, wanted)
                        mask = wanted
                    timeout = 0.0 if more or self._callbacks else max(0.0, self._due - monotonic())
                    events = selector.select(
                        None if timeout == inf else min(timeout, LONGEST_SELECT)
                    )
                    with self._lock:
                        self._turn({key.fileobj for key, _ in events})
                    if self._callbacks:
                        self._call_back()
        except OSError as exc:
            failure = exc  # there is no descriptor for a selector, or the socket is no socket
        except BaseException as exc:
            failure = exc  # a fault of ours, or of a socket's of the user's making
            raise
        finally:
            with self._lock:
                if self.changing:
                    self._give_up()
                self._lose(failure)
            self._close_sockets()
            self.record.ended()
            with self._lock:
                self.gone = True
                self._notify(0)
            while self._callbacks:
                self._call_back()
            _io_threads.discard(threading.get_ident())

    def _call_back(self) -> None:
        """Call what the program wants to have called, as a thread that may do all but wait."""
        thread = threading.get_ident()
        serving = thread in _io_threads
        _io_threads.discard(thread)
        calling_back.add(thread)
        try:
            # Those that are added meanwhile have their turn after the next look at the socket.
            for _ in range(len(self._callbacks)):
                call_logged(self._callbacks.popleft())
        except IndexError:
            return  # another thread has called the last of them
        finally:
            calling_back.discard(thread)
            if serving:
                _io_threads.add(thread)

    def _let_accept(self) -> None:
        """Let other threads accept for a moment, before streams are refused."""
        core = self.core
        with self._lock:
            if not core.paused or core.table.acceptable < core.ledger.config.accept_backlog:
                return
            waiter = self._room = Waiter()
        waiter.wait(monotonic() + ACCEPT_PAUSE)
        with self._lock:
            self._room = None

    def _turn(self, ready: set[object]) -> None:
        if self.lost or self.changing:
            return
        core = self.core
        if self._wakeup in ready:
            with contextlib.suppress(OSError):
                self._wakeup.recv(4096)
        while self._later:
            try:
                self._later.popleft()()
            except MuxadoError as exc:
                logger.info("a call that had to be put off failed: %s", exc)
        while self._dropped and self._dropped[0][0] <= monotonic():
            self._dropped.popleft()[1].reset(ErrorCode.STREAM_CANCELLED)
        if core.paused:
            core.resume(monotonic())
        if (self.link.sock in ready or self.link.decrypted()) and self.link.reads():
            self.link.read()
        if monotonic() >= core.next_deadline():
            core.handle_timer(monotonic())
        self.crowd.look()
        if not self.lost:
            self.link.send()
        self._turning = True
        self._report()
        self._turning = False
        self.crowd.wake_next()

    def _close_sockets(self) -> None:
        self.link.close()
        self._wakeup.close()
        self._wakeup_send.close()

    def forget_in_child(self) -> None:
        """Leave the session to the parent process, after a fork."""
        _io_threads.clear()
        calling_back.clear()
        self.lost = self.gone = True
        self._close_sockets()
        forks.disown(self.core)


def _ignore(events: int) -> None:
    pass


# The threads that all others wait for, so they wait for none.
_io_threads: set[int] = set()
