"""Whatever the tasks of a session meet, and wherever: nothing hangs, and the program is told."""

from __future__ import annotations

import dis
import functools
import itertools
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
import trio
import trio.testing

import muxado.core
import muxado.trio
from muxado.build import COMPILED
from muxado.trio import Server, Session, Stream
from tests.certificates import Tls

from .cancelling import Turns
from .conftest import PATIENCE
from .faults import Faulty, converse, converse_over, echo, exchange, secured

HOST = "127.0.0.1"

EXCEPTIONS: list[Callable[[], Exception]] = [
    lambda: OSError("unplugged"),
    lambda: trio.BrokenResourceError("broken"),
    lambda: trio.ClosedResourceError("closed"),
    lambda: trio.BusyResourceError("busy"),
    lambda: RuntimeError("odd"),
    lambda: ExceptionGroup("several", [ValueError("one"), OSError("two")]),
]
INTERRUPTS: list[Callable[[], BaseException]] = [
    KeyboardInterrupt,
    SystemExit,
    lambda: BaseExceptionGroup("several", [KeyboardInterrupt(), ValueError()]),
]


def name_of(value: Any) -> str:
    return type(value()).__name__ if callable(value) else str(value)


def clocked(run: Callable[[], Awaitable[None]]) -> None:
    """Run under a clock that jumps when all wait, so that a deadlock needs no time."""

    async def bounded() -> None:
        with trio.fail_after(1000):
            await run()

    trio.run(bounded, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize("make", EXCEPTIONS, ids=name_of)
@pytest.mark.parametrize("client", [True, False], ids=["client", "server"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_an_exception_at_any_call_of_the_transport_ends_the_session_with_it(
    tls: Tls, make: Callable[[], Exception], client: bool, secure: bool
) -> None:
    carried = 0

    async def every_call() -> None:
        nonlocal carried
        for late in (False, True):
            for call in itertools.count(1):
                error = make()
                end = await converse_over(
                    error, call, late=late, client=client, tls=tls if secure else None
                )
                assert end.raised is None
                assert end.reason is not None
                if not end.reached:
                    break
                # It may have been closed after the error, before that was noticed.
                if end.failed and end.earlier is None and not end.reason.clean:
                    assert end.reason.exception is error
                    assert error.__traceback__ is None  # it would keep buffers alive
                    carried += 1

    clocked(every_call)
    assert carried > 5


def copied(this: BaseException | None, that: BaseException) -> bool:
    """Return whether one is what a cancel scope of trio's makes of a group."""
    if isinstance(this, BaseExceptionGroup) and isinstance(that, BaseExceptionGroup):
        return this.exceptions == that.exceptions
    return False


@pytest.mark.parametrize("make", INTERRUPTS, ids=name_of)
@pytest.mark.parametrize("client", [True, False], ids=["client", "server"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_an_interrupt_at_any_call_of_the_transport_comes_out_of_the_block_once(
    tls: Tls, make: Callable[[], BaseException], client: bool, secure: bool
) -> None:
    carried = 0

    async def every_call() -> None:
        nonlocal carried
        for late in (False, True):
            for call in itertools.count(1):
                error = make()
                end = await converse_over(
                    error, call, late=late, client=client, tls=tls if secure else None
                )
                if not end.reached:
                    assert end.raised is None
                    break
                assert end.reason is not None
                if not end.failed:  # the call was cancelled
                    continue
                assert end.raised is error or copied(end.raised, error)
                if end.earlier is None:
                    seen = end.reason.exception
                    assert seen is error or copied(seen, error)
                    carried += 1

    clocked(every_call)
    assert carried > 5


async def test_an_interrupt_in_a_transport_ends_a_block_that_does_something_else() -> None:
    near, _ = trio.testing.memory_stream_pair()
    faulty = Faulty(near, 1, KeyboardInterrupt(), late=False)
    faulty.calls = 0

    async def use() -> None:
        async with muxado.trio.client(faulty) as session:
            faulty.session = session
            await trio.sleep_forever()

    scope = trio.CancelScope(deadline=trio.current_time() + PATIENCE / 2)
    with pytest.raises(KeyboardInterrupt), scope:
        await use()
    assert not scope.cancel_called


async def test_a_blocks_exception_is_not_lost_to_a_cancellation_that_comes_with_it() -> None:
    near, _ = trio.testing.memory_stream_pair()
    blocks: list[AbstractAsyncContextManager[object]] = [
        muxado.trio.client(near),
        muxado.trio.listen(HOST, 0),
    ]
    for block in blocks:
        scope = trio.CancelScope()

        async def fail(scope: trio.CancelScope = scope, block: Any = block) -> None:
            with scope:
                async with block:
                    scope.cancel()
                    raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()


@pytest.mark.parametrize("which", [1, 2, 3])
def test_an_interrupt_in_a_handler_comes_out_whatever_else_fails_with_it(which: int) -> None:
    handled = 0

    async def handle(stream: Stream) -> None:
        nonlocal handled
        handled += 1
        if handled == which:
            raise KeyboardInterrupt
        await echo(stream)

    async def serve_session(session: Session) -> None:
        await session.serve(handle)

    async def program() -> None:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(muxado.trio.serve, serve_session, HOST, 0))
            await ask(None, server)  # fails too, since its peer does

    assert interrupted(program)


async def test_the_log_has_the_traceback_of_a_faulty_transport_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    near, _ = trio.testing.memory_stream_pair()
    faulty = Faulty(near, 1, RuntimeError("odd"), late=False)
    faulty.calls = 0
    async with muxado.trio.client(faulty) as session:
        faulty.session = session
        with pytest.raises(trio.BrokenResourceError, match="odd"):
            await session.accept()
    told = [record for record in caplog.records if record.exc_info]
    assert len(told) == 1


class Interrupt(trio.abc.Instrument):
    """Delivers KeyboardInterrupt to a task that waits, after some turns.

    It does what trio does for the main task.
    """

    def __init__(self, name: str, turns: int) -> None:
        self._name = name
        self._turns = turns
        self._tasks: list[trio.lowlevel.Task] = []
        self.delivered = False
        self.over = False  # there were not so many turns

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        if task.name == self._name:
            self._tasks.append(task)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        if task in self._tasks:
            self._tasks.remove(task)

    def after_io_wait(self, timeout: float) -> None:
        self._turns -= 1
        if self._turns > 0 or self.delivered:
            return
        for task in self._tasks:
            if task._abort_func is not None:  # it waits, and may be interrupted
                task._attempt_abort(self._interrupt)
                self.delivered = True
                return

    def _interrupt(self) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize(
    "name",
    [
        "muxado session",
        "muxado session reading",
        "muxado session watching the clock",
    ],
)
def test_an_interrupt_at_any_wait_of_a_sessions_task_comes_out(
    tls: Tls, name: str, secure: bool
) -> None:
    async def use() -> None:
        near, far = trio.testing.memory_stream_pair()
        here: trio.abc.Stream = near
        there: trio.abc.Stream = far
        if secure:
            here, there = await secured(tls, near, far, client=True)
        async with muxado.trio.server(there) as server, trio.open_nursery() as nursery:
            nursery.start_soon(partial(converse, server, close=False))
            async with muxado.trio.client(here) as client:
                await converse(client, close=True)

    delivered = 0
    for turns in itertools.count(1):
        instrument = Interrupt(name, turns)
        clock = trio.testing.MockClock(autojump_threshold=0)
        came_out = interrupted(use, clock=clock, instruments=[instrument])
        assert came_out == instrument.delivered
        if not came_out:
            break
        delivered += 1
    assert delivered > 10


def interrupted(program: Callable[..., Awaitable[None]], *args: object, **options: Any) -> bool:
    """Run a program; return whether KeyboardInterrupt has come out, among others perhaps."""
    try:
        trio.run(program, *args, **options)
    except (KeyboardInterrupt, BaseExceptionGroup) as exc:
        if not holds_interrupt(exc):
            raise
        return True
    return False


def holds_interrupt(exc: BaseException) -> bool:
    if isinstance(exc, BaseExceptionGroup):
        return any(map(holds_interrupt, exc.exceptions))
    return isinstance(exc, KeyboardInterrupt)


# A program with a server and a client on real sockets


async def serve_session(session: Session) -> None:
    await session.serve(echo)


def server_side(tls: Tls | None) -> Callable[..., Awaitable[None]]:
    context = None if tls is None else tls.server
    return partial(muxado.trio.serve, serve_session, HOST, 0, ssl=context)


async def client_in_front(tls: Tls | None) -> None:
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(server_side(tls))
        await ask(tls, server)
        await server.shutdown()


class Status(trio.TaskStatus[Server]):
    """Takes the server that has started."""

    def __init__(self) -> None:
        self._ready = trio.Event()
        self._server: Server | None = None

    def started(self, value: Server | None = None) -> None:
        self._server = value
        self._ready.set()

    async def server(self) -> Server:
        await self._ready.wait()
        assert self._server is not None
        return self._server


async def server_in_front(tls: Tls | None) -> None:
    status = Status()

    async def client() -> None:
        server = await status.server()
        await ask(tls, server)
        server.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(client)
        await server_side(tls)(task_status=status)


async def ask(tls: Tls | None, server: Server) -> None:
    context = None if tls is None else tls.client
    async with muxado.trio.connect(*server.addresses[0], ssl=context) as session:
        async with trio.open_nursery() as asking:
            for _ in range(3):
                asking.start_soon(exchange, session, bytes(3000))
        await session.ping()


Program = Callable[[Tls | None], Awaitable[None]]


@pytest.mark.parametrize("program", [client_in_front, server_in_front])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("restrict", [False, True], ids=["anywhere", "at checkpoints"])
def test_one_ctrl_c_ends_a_program_in_any_turn(
    tls: Tls, program: Program, secure: bool, restrict: bool
) -> None:
    hits = 0
    for turn in itertools.count(1):
        sent = False

        def interrupt() -> None:
            nonlocal sent
            sent = True
            signal.raise_signal(signal.SIGINT)

        secured_by = tls if secure else None
        hits += interrupted(
            program,
            secured_by,
            instruments=[Turns(turn, interrupt)],
            restrict_keyboard_interrupt_to_checkpoints=restrict,
        )
        if not sent:
            break
    assert hits > 10


OURS = str(Path(muxado.trio.__file__).parent.parent)


class Profiler:
    """Raises a signal at the beginning of one of the functions that the library calls.

    The interpreter looks for signals there, and not where a coroutine is resumed.
    """

    def __init__(self, call: int) -> None:
        self.calls = 0
        self._call = call

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        if event != "call" or frame.f_lasti > start_of(frame.f_code) or not for_us(frame):
            return
        self.calls += 1
        if self.calls == self._call:
            sys.setprofile(None)
            signal.raise_signal(signal.SIGINT)


@functools.cache
def start_of(code: CodeType) -> int:
    return next(step.offset for step in dis.get_instructions(code) if step.opname == "RESUME")


def for_us(frame: FrameType | None) -> bool:
    """Return whether a function is the library's, or called by it, and not by the program."""
    while frame is not None and frame.f_code.co_filename != __file__:
        if frame.f_code.co_filename.startswith(OURS):
            return True
        frame = frame.f_back
    return False


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # for what the interrupt cuts off
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("program", [client_in_front, server_in_front])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
def test_one_ctrl_c_ends_a_program_whatever_it_calls(
    tls: Tls, program: Program, secure: bool
) -> None:
    def run(call: int) -> int:
        profiler = Profiler(call)

        async def profiled() -> None:
            sys.setprofile(profiler)
            try:
                await program(tls if secure else None)
            finally:
                sys.setprofile(None)

        interrupted(profiled)
        return profiler.calls

    calls = run(0)
    step = calls // 101
    for call in range(1, calls, step):
        run(call)


CORE = muxado.core.__path__[0]

# They look, and change nothing.
LOOKS = {"unread", "queued", "<genexpr>", "pending", "stalled"}


@pytest.mark.skipif(COMPILED, reason="compiled code can't be interrupted")
def test_no_ctrl_c_comes_inside_a_step_of_the_core() -> None:
    seen: set[str] = set()
    open_to_it: set[str] = set()

    def profile(frame: FrameType, event: str, arg: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(CORE):
            name = frame.f_code.co_name
            seen.add(name)
            if not trio.lowlevel.currently_ki_protected():
                open_to_it.add(name)

    async def program() -> None:
        sys.setprofile(profile)
        try:
            await client_in_front(None)
        finally:
            sys.setprofile(None)

    trio.run(program)
    assert {"bytes_received", "write", "data_to_send", "close", "open", "accept", "ping"} <= seen
    assert open_to_it - LOOKS == set()
