"""Raises in a call of the main thread's, at each place where a signal's handler could.

In the front end that is each call, return and backward jump, and behind each call of something
that is not Python; in the pure core each line, which is more than the interpreter does. Of the
compiled core, what it calls back is Python too. Afterwards the session is asked whether it works,
or has ended with an error, and the peer what it has read.
"""

from __future__ import annotations

import dis
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import muxado
from muxado import sync
from muxado.sync import Stream
from tests import inside

from .helpers import PATIENCE

LIBRARY = str(Path(muxado.__file__).parent)
PURE = (str(Path(LIBRARY, "core")), str(Path(LIBRARY, "wire")))

BEFORE, DURING, AFTER = b"before,", b"during,", b"after."
TOLD = bytes(range(200))


class Interrupt(BaseException):
    """What a signal's handler raises in a test."""


class Alarm(TimeoutError):
    """The same, as an alarm clock raises it: the library's own errors look like it."""


class Places:
    """A trace function that raises at the n-th place, once.

    Attributes:
        seen: how many places there have been.
        at_return: whether it was raised at the return of the outermost call, whose result
            is lost with any function.
    """

    def __init__(self, number: int, error: type[BaseException]) -> None:
        self.seen = 0
        self.at_return = False
        self.hit = ""
        self._number = number
        self._error = error
        self._depth = 0
        self._before: dict[FrameType, int] = {}

    @contextmanager
    def traced(self) -> Iterator[None]:
        """Be raised at in this block."""
        before = sys.gettrace()
        sys.settrace(self._called)
        try:
            yield
        finally:
            sys.settrace(before)

    def _called(self, frame: FrameType, event: str, arg: object) -> Callable[..., Any] | None:
        name = frame.f_code.co_filename
        if not name.startswith(LIBRARY) or in_finalizer(frame):
            return None
        if name.startswith(PURE):
            return self._line
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        self._depth += 1
        self._place(frame, "call")
        return self._step

    def _line(self, frame: FrameType, event: str, arg: object) -> Callable[..., Any]:
        if event == "line":
            self._place(frame, "line")
        return self._line

    def _step(self, frame: FrameType, event: str, arg: object) -> Callable[..., Any]:
        if event == "opcode":
            at = frame.f_lasti
            names = opcodes(frame.f_code)
            before = self._before.get(frame)
            self._before[frame] = at
            called = before is not None and names[before].startswith("CALL")
            if called or "JUMP_BACKWARD" in names[at]:
                self._place(frame, names[at])
        elif event == "return":
            self._before.pop(frame, None)
            self._depth -= 1
            self._place(frame, "return")
        return self._step

    def _place(self, frame: FrameType, what: str) -> None:
        self.seen += 1
        if self.seen == self._number:
            code = frame.f_code
            self.hit = f"{Path(code.co_filename).name}:{frame.f_lineno} {code.co_name} {what}"
            self.at_return = what == "return" and self._depth == 0
            raise self._error


def in_finalizer(frame: FrameType | None) -> bool:
    """Return whether this is part of a finalizer, whose exceptions the interpreter swallows."""
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


_opcodes: dict[CodeType, dict[int, str]] = {}


def opcodes(code: CodeType) -> dict[int, str]:
    """Return the names of a function's instructions, by their places."""
    names = _opcodes.get(code)
    if names is None:
        names = _opcodes[code] = {each.offset: each.opname for each in dis.get_instructions(code)}
    return names


class Scene:
    """A pair of sessions, with a stream to be interrupted and one that another thread uses."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        near, far = socket.socketpair()
        self.pool = pool
        self.client = sync.client(near)
        self.server = sync.server(far)
        self.near, self.far = self._opened()
        self.witness, self.witnessed = self._opened()
        self.near.sendall(BEFORE)
        self.witness.sendall(BEFORE)
        self.got = b""
        self.over = threading.Event()
        self.tells = False  # the peer says something, at some time
        self._telling = threading.Lock()
        self._told = False

    def _opened(self) -> tuple[Stream, Stream]:
        near = self.client.open(eager=True)
        far = self.server.accept(PATIENCE)
        near.settimeout(PATIENCE)
        far.settimeout(PATIENCE)
        return near, far

    def once(self, ready: Callable[[], bool], act: Callable[[], object]) -> None:
        """Do something in another thread as soon as the call under test waits."""

        def run() -> None:
            while not ready():
                if self.over.wait(0.0005):
                    return
            act()

        self.pool.submit(run)

    def tell(self) -> None:
        """Have the peer say what it has to say, once."""
        with self._telling:
            if not self._told:
                self._told = True
                self.far.sendall(TOLD)
                self.far.write_eof()

    def check(self, place: Places) -> None:
        """Fail unless the session works as if the call had been done or not, or has ended."""
        self.over.set()
        ask = self.pool.submit
        # The lock is free.
        ask(self.client.stats).result(PATIENCE)
        try:
            ask(self.client.ping, PATIENCE).result(PATIENCE)
        except muxado.SessionError:
            assert self.client.closed
        else:
            assert not self.client.closed
        end = self._ends(self.witness)
        self._read(self.witnessed, BEFORE + AFTER, [BEFORE + AFTER], end)
        written = [BEFORE + AFTER, BEFORE + DURING + AFTER, BEFORE, BEFORE + DURING]
        end = self._ends(self.near)
        self._read(self.far, BEFORE + DURING + AFTER, written[: 2 if end is None else 4], end)
        if self.client.closed:
            ask(self.client.wait_closed, PATIENCE).result(PATIENCE)
        elif self.tells:
            self.pool.submit(self.tell).result(PATIENCE)
            self._read_on(place)

    def _ends(self, stream: Stream) -> BaseException | None:
        """Write the last of a stream in another thread; return what is wrong with it."""

        def run() -> None:
            stream.sendall(AFTER)
            stream.write_eof()

        return self.pool.submit(run).exception(PATIENCE)

    def _read(
        self, stream: Stream, most: bytes, whole: list[bytes], end: BaseException | None
    ) -> None:
        """Read what has come to the peer, to its end."""

        def run() -> tuple[bytes, BaseException | None]:
            data = b""
            try:
                while piece := stream.recv(1000):
                    data += piece
            except muxado.MuxadoError as exc:
                return data, exc
            return data, None

        assert end is None or isinstance(end, muxado.MuxadoError), repr(end)
        data, error = self.pool.submit(run).result(PATIENCE)
        if error is None and data not in whole:
            raise AssertionError(f"the peer read {data!r} and a clean end; the writer: {end!r}")
        if error is not None:
            # It was cut, and here one knows that too.
            assert most.startswith(data) or data == BEFORE + AFTER, data
            assert end is not None or self.client.closed

    def _read_on(self, place: Places) -> None:
        """See that no byte of what the peer says is missing here."""

        def run() -> bytes:
            data = b""
            while len(self.got + data) < len(TOLD):
                piece = self.near.recv(1000)
                if not piece:
                    break
                data += piece
            return data

        try:
            rest = self.pool.submit(run).result(PATIENCE)
        except (muxado.StreamClosed, muxado.StreamReset):
            return
        except muxado.SessionError:
            assert self.client.closed
            return
        if self.got + rest != TOLD[: len(self.got + rest)] or len(self.got + rest) < len(TOLD):
            assert place.at_return, f"read {self.got!r}, then {rest!r}"
            assert TOLD.endswith(rest)

    def close(self) -> None:
        """End both sessions, and wait for their threads."""
        for session in (self.client, self.server):
            self.pool.submit(session.abort).result(PATIENCE)
        for session in (self.client, self.server):
            self.pool.submit(session.wait_closed, PATIENCE).result(PATIENCE)


def tell(scene: Scene) -> None:
    """Have the peer say something, and wait until it is here."""
    scene.tells = True
    scene.tell()
    while scene.near._core.unread() < len(TOLD):
        scene.client.ping(PATIENCE)


def reading(scene: Scene) -> bool:
    return scene.near._core.read_waiter is not None


def keep(read: Callable[[Stream], bytes]) -> Callable[[Scene], Callable[[], object]]:
    """Make scenes of a way to read: bytes are here already, or they come while it waits."""

    def prepare(scene: Scene) -> Callable[[], object]:
        tell(scene)

        def call() -> None:
            scene.got = read(scene.near)

        return call

    return prepare


def keep_waiting(read: Callable[[Stream], bytes]) -> Callable[[Scene], Callable[[], object]]:
    """The same, but the bytes come while it waits."""

    def prepare(scene: Scene) -> Callable[[], object]:
        scene.tells = True
        scene.once(lambda: reading(scene), scene.tell)

        def call() -> None:
            scene.got = read(scene.near)

        return call

    return prepare


def recv_into(stream: Stream) -> bytes:
    buffer = bytearray(1000)
    return bytes(buffer[: stream.recv_into(buffer)])


def readline(stream: Stream) -> bytes:
    with stream.makefile("rb") as file:
        line: bytes = file.readline(len(TOLD))
    return line + (stream.recv(1000) if len(line) < 11 else b"")


def accept_waiting(scene: Scene) -> Callable[[], object]:
    scene.once(lambda: bool(scene.client._acceptors), lambda: scene.server.open(eager=True).close())
    return lambda: scene.client.accept(PATIENCE).close()


def accept(scene: Scene) -> Callable[[], object]:
    scene.server.open(eager=True).close()
    while not inside.accept_queue(scene.client._core):
        scene.client.ping(PATIENCE)
    return lambda: scene.client.accept(PATIENCE).close()


def accept_as_listener(scene: Scene) -> Callable[[], object]:
    scene.server.open(eager=True).close()
    listener = scene.client.listener()
    while not inside.accept_queue(scene.client._core):
        scene.client.ping(PATIENCE)
    return lambda: listener.accept()[0].close()


def leave_stream(scene: Scene) -> None:
    with scene.near:
        scene.near.sendall(DURING)


def leave_session(scene: Scene) -> None:
    with scene.client:
        scene.near.sendall(DURING)


def leave_failing(scene: Scene) -> None:
    try:
        with scene.near:
            raise ZeroDivisionError
    except ZeroDivisionError:
        pass


SCENES: dict[str, Callable[[Scene], Callable[[], object]]] = {
    "open": lambda scene: lambda: scene.client.open().close(),
    "open-eager": lambda scene: lambda: scene.client.open(eager=True).close(),
    "send": lambda scene: lambda: scene.near.send(DURING),
    "sendall": lambda scene: lambda: scene.near.sendall(DURING),
    "recv": keep(lambda stream: stream.recv(1000)),
    "recv-waiting": keep_waiting(lambda stream: stream.recv(1000)),
    "recv-into": keep(recv_into),
    "recv-into-waiting": keep_waiting(recv_into),
    "recv-all": keep(lambda stream: stream.recv(150, socket.MSG_WAITALL)),
    "recv-all-waiting": keep_waiting(lambda stream: stream.recv(150, socket.MSG_WAITALL)),
    "shutdown": lambda scene: lambda: scene.near.shutdown(socket.SHUT_WR),
    "close": lambda scene: scene.near.close,
    "reset": lambda scene: scene.near.reset,
    "stream-block": lambda scene: lambda: leave_stream(scene),
    "failing-block": lambda scene: lambda: leave_failing(scene),
    "accept": accept,
    "accept-waiting": accept_waiting,
    "listener-accept": accept_as_listener,
    "ping": lambda scene: lambda: scene.client.ping(PATIENCE),
    "go-away": lambda scene: scene.client.go_away,
    "session-close": lambda scene: scene.client.close,
    "session-abort": lambda scene: scene.client.abort,
    "session-shutdown": lambda scene: lambda: scene.client.shutdown(0.01),
    "session-block": lambda scene: lambda: leave_session(scene),
}


def interrupt(
    name: str, number: int, pool: ThreadPoolExecutor, error: type[BaseException] = Interrupt
) -> int:
    """Play a scene, interrupted at one place; return how many places there were."""
    scene = Scene(pool)
    place = Places(number, error)
    try:
        call = SCENES[name](scene)
        raised: BaseException | None = None
        with place.traced():
            try:
                call()
            except (Interrupt, Alarm) as exc:
                raised = exc
        if place.hit and raised is None:
            raise AssertionError("the exception was swallowed")
        try:
            scene.check(place)
        except BaseException as exc:
            exc.add_note(f"{name}: interrupted at {number}: {place.hit}")
            raise
    finally:
        scene.over.set()
        scene.close()
    return place.seen
