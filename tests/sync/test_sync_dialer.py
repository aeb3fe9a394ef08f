"""`Dialer` for threads: it stays connected through all that can happen to its servers."""

from __future__ import annotations

import contextlib
import gc
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

import muxado
from muxado import Backoff, Config, DialerState, ErrorCode, sync
from muxado.redial import MOST_DRAINING
from muxado.sync import Dialer, Session, Stream
from tests import inside
from tests.certificates import Tls
from tests.forking import living_child, needs_fork
from tests.killable import killable

from .helpers import PATIENCE
from .interrupting import Interrupt, Places

HOST = "127.0.0.1"
QUICK = Backoff(first=0.01, most=0.05)
NEVER = Backoff(first=1000, most=1000)  # the next try has to be asked for, most likely


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    """Fail a test that leaves threads behind."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + PATIENCE
    for thread in set(threading.enumerate()) - before:
        if "muxado dialer" in thread.name:
            thread.join(max(0.0, deadline - time.monotonic()))
            assert not thread.is_alive(), thread


def echo(stream: Stream) -> None:
    while data := stream.recv(65536):
        stream.sendall(data)


def ask(stream: Stream) -> bytes:
    stream.settimeout(PATIENCE)
    stream.sendall(b"hello")
    stream.shutdown(socket.SHUT_WR)
    return stream.recv(5, socket.MSG_WAITALL)


def bounce(stream: Stream, data: bytes = b"both") -> None:
    """See that a stream carries bytes both ways."""
    stream.settimeout(PATIENCE)
    stream.sendall(data)
    assert stream.recv(len(data), socket.MSG_WAITALL) == data


def place(server: sync.Server) -> tuple[str, int]:
    address: tuple[str, int] = server.addresses[0][:2]
    return address


@contextmanager
def beside(function: Callable[..., Any], *args: Any) -> Iterator[Future[Any]]:
    """Run a function in another thread beside the block."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(function, *args)


@contextmanager
def closed() -> Iterator[socket.socket]:
    """Give a socket that refuses connections until it listens."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        yield sock


@contextmanager
def two_servers() -> Iterator[tuple[sync.Server, sync.Server]]:
    with sync.serve_streams(echo, HOST, 0) as first, sync.serve_streams(echo, HOST, 0) as second:
        yield first, second


@contextmanager
def keeping() -> Iterator[tuple[sync.Server, queue.SimpleQueue[Session]]]:
    """Run a server that gives its sessions to the test."""
    arrived: queue.SimpleQueue[Session] = queue.SimpleQueue()

    def keep(session: Session) -> None:
        arrived.put(session)
        session.wait_closed()

    with sync.serve(keep, HOST, 0) as server:
        yield server, arrived


class Changes:
    """What `on_change` has told, and a way to wait for more of it."""

    def __init__(self) -> None:
        self.states: list[DialerState] = []
        self._told = threading.Condition()

    def __call__(self, state: DialerState) -> None:
        with self._told:
            self.states.append(state)
            self._told.notify_all()

    def reach(self, *states: str) -> None:
        """Wait until it has told these states in this order, with others between them."""

        def reached() -> bool:
            left = list(states)
            for state in self.states:
                if left and state == left[0]:
                    left.pop(0)
            return not left

        with self._told:
            assert self._told.wait_for(reached, PATIENCE), self.states


# Outages


def test_streams_are_opened_on_the_session_that_lives() -> None:
    with sync.serve_streams(echo, HOST, 0) as server:
        with Dialer(*place(server)) as dialer:
            session = dialer.session(PATIENCE)
            for _ in range(3):
                with dialer.open() as stream:
                    assert stream.session is session
                    assert ask(stream) == b"hello"
            assert dialer.call(ask) == b"hello"
            assert (dialer.state, dialer.last_error) == ("connected", None)
        assert session.close_reason is not None
        assert session.close_reason.clean
        assert dialer.state == "closed"


def test_a_call_waits_through_an_outage() -> None:
    with closed() as sock:
        changes = Changes()
        with (
            Dialer(*sock.getsockname(), backoff=QUICK, on_change=changes) as dialer,
            beside(dialer.call, ask) as calling,
        ):
            changes.reach("waiting", "connecting", "waiting")
            assert isinstance(dialer.last_error, ConnectionRefusedError)
            with sync.serve_streams(echo, sock=sock):
                assert calling.result(PATIENCE) == b"hello"
    assert changes.states[-1] == "closed"


def test_a_server_that_is_killed_and_started_again() -> None:
    with killable() as first:
        changes = Changes()
        with Dialer(*first.address, backoff=QUICK, on_change=changes) as dialer:
            stream = dialer.open(timeout=PATIENCE)
            bounce(stream)
            first.kill()
            with pytest.raises(muxado.SessionError):
                stream.recv(1)
            changes.reach("connected", "waiting")
            with killable(first.address[1]):
                assert dialer.call(ask, timeout=PATIENCE) == b"hello"
            stream.close()


def test_a_server_that_is_started_again_at_another_address() -> None:
    with killable() as first, closed() as sock, killable() as last:
        addresses = [first.address, sock.getsockname(), last.address]
        with Dialer(addresses=addresses, backoff=QUICK) as dialer:
            assert dialer.call(ask) == b"hello"
            first.kill()
            while (session := dialer.session(PATIENCE)).remote_address != last.address:
                session.wait_closed(PATIENCE)
            assert dialer.call(ask) == b"hello"


def test_a_function_can_dial(tls: Tls) -> None:
    tries = 0

    class Busy(Exception):
        retry_after = 0.05

    with sync.serve_streams(echo, HOST, 0, ssl=tls.server) as server:

        def dial() -> Session:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise Busy
            return sync.connect(*place(server), ssl=tls.client)

        began = time.monotonic()
        with Dialer(dial=dial, backoff=QUICK) as dialer:
            assert dialer.call(ask, timeout=PATIENCE) == b"hello"
            assert time.monotonic() - began >= 0.1
            assert isinstance(dialer.last_error, Busy)
    assert tries == 3


# Denials, and servers that say nothing


@pytest.mark.parametrize("way", ["abort", "go_away"])
def test_a_denial_raises_from_every_call_that_waits(way: str) -> None:
    with keeping() as (server, arrived), Dialer(*place(server), backoff=QUICK) as dialer:
        sessions = iter(dialer)
        next(sessions)
        with beside(next, sessions) as iterating, beside(dialer.serve, echo) as serving:
            if way == "abort":
                arrived.get(timeout=PATIENCE).abort(403)
            else:
                arrived.get(timeout=PATIENCE).go_away(403, b"who are you?")
            for waiting in (iterating, serving):
                with pytest.raises((muxado.SessionAborted, muxado.PeerGone)) as caught:
                    waiting.result(PATIENCE)
                assert caught.value.code == 403
        for call in (dialer.session, dialer.open, lambda: dialer.call(ask)):
            with pytest.raises((muxado.SessionAborted, muxado.PeerGone)):
                call()
        assert dialer.state == "failed"
        assert dialer.last_error is caught.value
        assert arrived.empty()


def test_a_server_that_accepts_and_says_nothing_costs_a_timeout(tls: Tls) -> None:
    with (
        socket.create_server((HOST, 0)) as silent,
        sync.serve_streams(echo, HOST, 0, ssl=tls.server) as server,
        Dialer(
            addresses=[silent.getsockname(), place(server)],
            ssl=tls.client,
            timeout=0.1,
            backoff=QUICK,
        ) as dialer,
    ):
        with pytest.raises(TimeoutError, match="timed out"):
            dialer.open(timeout=0.01)
        assert dialer.session(PATIENCE).remote_address == place(server)
        assert isinstance(dialer.last_error, TimeoutError)


def test_a_session_whose_peer_says_nothing_is_followed_by_the_next() -> None:
    config = Config(ping_interval=0.05, ping_timeout=0.05)
    with (
        socket.create_server((HOST, 0)) as silent,
        sync.serve_streams(echo, HOST, 0) as server,
        Dialer(
            addresses=[silent.getsockname(), place(server)], config=config, backoff=QUICK
        ) as dialer,
    ):
        first = dialer.session(PATIENCE)
        assert first.remote_address == silent.getsockname()
        first.wait_closed(PATIENCE)
        assert dialer.session(PATIENCE).remote_address == place(server)
        assert isinstance(dialer.last_error, muxado.PeerTimeout)


# Overlap


def test_no_call_fails_over_a_drain_under_load() -> None:
    with (
        two_servers() as (first, second),
        Dialer(addresses=[place(first), place(second)], backoff=QUICK) as dialer,
    ):
        old = dialer.session(PATIENCE)
        some = threading.Event()
        drained = threading.Event()

        def work() -> int:
            done = after = 0
            while after < 10:
                assert dialer.call(ask) == b"hello"
                done += 1
                after += drained.is_set()
                if done == 10:
                    some.set()
            return done

        with ThreadPoolExecutor(8) as pool:
            working = [pool.submit(work) for _ in range(8)]
            assert some.wait(PATIENCE)
            first.shutdown()
            drained.set()
            assert all(each.result(PATIENCE) >= 10 for each in working)
        assert old.wait_closed(PATIENCE).clean
        assert dialer.session().remote_address == place(second)


@pytest.mark.parametrize("way", ["GOAWAY", "renew"])
def test_both_sessions_carry_bytes_at_once(way: str) -> None:
    with (
        two_servers() as (first, second),
        Dialer(addresses=[place(first), place(second)], backoff=QUICK) as dialer,
    ):
        sessions = iter(dialer)
        old = next(sessions)
        stream = dialer.open()
        bounce(stream)
        if way == "GOAWAY":
            first.sessions[0].go_away()
        else:
            dialer.renew()
        assert next(sessions).remote_address == place(second)
        other = dialer.open()
        assert (stream.session, other.session is old) == (old, False)
        for _ in range(10):  # in turn: neither has ended while the other one works
            bounce(stream)
            bounce(other)
        stream.close()  # the last stream of its session
        assert old.wait_closed(PATIENCE).clean
        bounce(other)
        other.close()


def test_a_session_whose_ids_are_used_up_is_followed_by_the_next() -> None:
    with (
        two_servers() as (first, second),
        Dialer(addresses=[place(first), place(second)], backoff=QUICK) as dialer,
    ):
        old = dialer.session(PATIENCE)
        inside.set_next_id(old._core, 2**31 + 1)
        with dialer.open(timeout=PATIENCE) as stream:
            assert stream.session is not old
            assert ask(stream) == b"hello"
        assert old.wait_closed(PATIENCE).clean


def test_a_peer_that_drains_every_session_gets_no_more_than_some() -> None:
    came: queue.SimpleQueue[Session] = queue.SimpleQueue()
    streams = []

    def drain(session: Session) -> None:
        streams.append(session.open(eager=True))  # nothing ends it
        session.go_away()
        came.put(session)
        session.wait_closed()

    backoff = Backoff(first=0.001, most=0.01)
    with sync.serve(drain, HOST, 0) as server, Dialer(*place(server), backoff=backoff):
        sessions = [came.get(timeout=PATIENCE) for _ in range(MOST_DRAINING + 10)]
        for session in sessions[:5]:  # the oldest
            reason = session.wait_closed(PATIENCE)
            assert reason.code == ErrorCode.STREAM_CANCELLED


# Serving


def test_streams_of_the_peer_are_served_on_every_session() -> None:
    with (
        keeping() as (server, arrived),
        Dialer(*place(server), backoff=QUICK) as agent,
        beside(agent.serve, echo) as serving,
    ):
        first = arrived.get(timeout=PATIENCE)
        with first.open() as old:
            bounce(old)
            first.go_away()
            second = arrived.get(timeout=PATIENCE)
            with second.open() as new:
                for _ in range(3):
                    bounce(old)
                    bounce(new)
        first.wait_closed(PATIENCE)
        second.abort()  # an end of another kind ends nothing either
        third = arrived.get(timeout=PATIENCE)
        with third.open() as stream:
            assert ask(stream) == b"hello"
        agent.close()
        serving.result(PATIENCE)


def test_handlers_can_run_in_an_executor_of_which_there_are_few() -> None:
    names = set()

    def handler(stream: Stream) -> None:
        names.add(threading.current_thread().name)
        echo(stream)

    with (
        keeping() as (server, arrived),
        Dialer(*place(server)) as agent,
        ThreadPoolExecutor(2, "mine") as executor,
    ):
        serving = threading.Thread(
            target=agent.serve, args=(handler,), kwargs={"executor": executor, "limit": 2}
        )
        serving.start()
        session = arrived.get(timeout=PATIENCE)
        for _ in range(5):
            with session.open() as stream:
                assert ask(stream) == b"hello"
        agent.close()
        serving.join(PATIENCE)
    assert {name.split("_")[0] for name in names} == {"mine"}


def test_serve_says_what_is_wrong() -> None:
    with sync.serve_streams(echo, HOST, 0) as server, Dialer(*place(server)) as dialer:
        dialer.session(PATIENCE).on_stream(lambda stream: None)
        with pytest.raises(muxado.UsageError, match="on_stream"):
            dialer.serve(echo)
        with pytest.raises(muxado.UsageError, match="must be a function"):
            dialer.serve(None)  # type: ignore[arg-type]


# Iterating


def test_iteration_gives_each_session_as_it_comes_up() -> None:
    with (
        two_servers() as (first, second),
        Dialer(addresses=[place(first), place(second)], backoff=QUICK) as dialer,
    ):
        seen = []
        for session in dialer:
            seen.append(session.remote_address)
            if len(seen) == 4:
                dialer.close()
            elif len(seen) % 2:
                dialer.renew()
            else:
                session.abort()
        assert seen == [place(first), place(second)] * 2
        assert list(dialer) == []


# call()


def test_a_call_is_repeated_when_its_stream_is_refused() -> None:
    def slow_echo(stream: Stream) -> None:
        data = stream.recv(100)
        time.sleep(0.005)
        stream.sendall(data)

    busy = Config(max_incoming_streams=3)
    with (
        sync.serve_streams(slow_echo, HOST, 0, config=busy) as server,
        Dialer(*place(server), backoff=QUICK) as dialer,
        ThreadPoolExecutor(20) as pool,
    ):
        replies = list(pool.map(lambda _: dialer.call(ask), range(40)))
        assert replies == [b"hello"] * 40
        assert server.sessions[0].stats().refusals > 0


def test_a_call_that_the_peer_may_have_seen_is_not_repeated() -> None:
    came = []

    def reset(stream: Stream) -> None:
        came.append(stream.recv(1))
        stream.reset(ErrorCode.INTERNAL_ERROR)

    with sync.serve_streams(reset, HOST, 0) as server, Dialer(*place(server)) as dialer:
        with pytest.raises(muxado.StreamReset) as caught:
            dialer.call(ask)
        assert caught.value.code == ErrorCode.INTERNAL_ERROR
        assert came == [b"h"]


def test_another_streams_refusal_repeats_nothing() -> None:
    calls = []

    def call(stream: Stream) -> None:
        calls.append(stream)
        bounce(stream)
        raise muxado.StreamRefused("another stream's", code=5, by_peer=True)

    with sync.serve_streams(echo, HOST, 0) as server, Dialer(*place(server)) as dialer:
        with pytest.raises(muxado.StreamRefused, match="another"):
            dialer.call(call)
        assert len(calls) == 1


def test_a_call_that_is_always_refused_ends_at_its_timeout() -> None:
    full = Config(max_incoming_streams=0)
    with (
        sync.serve_streams(echo, HOST, 0, config=full) as server,
        Dialer(*place(server), backoff=QUICK) as dialer,
    ):
        with pytest.raises(TimeoutError):
            dialer.call(ask, timeout=0.1)
        with beside(dialer.call, ask) as calling:
            dialer.close()
            with pytest.raises(muxado.SessionClosed):
                calling.result(PATIENCE)


# The end


def test_leaving_the_block_waits_for_no_dial() -> None:
    go_on = threading.Event()
    dialling = threading.Event()
    sessions: queue.SimpleQueue[Session] = queue.SimpleQueue()
    with sync.serve_streams(echo, HOST, 0) as server:

        def dial() -> Session:
            dialling.set()
            assert go_on.wait(PATIENCE)
            session = sync.connect(*place(server))
            sessions.put(session)
            return session

        with Dialer(dial=dial):
            assert dialling.wait(PATIENCE)
        go_on.set()
        reason = sessions.get(timeout=PATIENCE).wait_closed(PATIENCE)
        assert reason.code == ErrorCode.STREAM_CANCELLED  # nothing has a use for it any more


def test_a_shutdown_lets_handlers_come_to_their_end() -> None:
    began, go_on = threading.Event(), threading.Event()

    def work(stream: Stream) -> None:
        stream.recv(1)
        began.set()
        assert go_on.wait(PATIENCE)
        stream.sendall(b"done")

    with keeping() as (server, arrived), Dialer(*place(server)) as agent:
        with beside(agent.serve, work) as serving:
            session = arrived.get(timeout=PATIENCE)
            with session.open() as stream:
                stream.settimeout(PATIENCE)
                stream.sendall(b"x")
                told = threading.Event()
                session.on_draining(told.set)
                assert began.wait(PATIENCE)
                with beside(agent.shutdown) as ending:
                    assert told.wait(PATIENCE)
                    with pytest.raises(muxado.SessionClosed):
                        agent.open()
                    assert not ending.done()
                    go_on.set()
                    assert stream.recv(4, socket.MSG_WAITALL) == b"done"
                    stream.close()
                    ending.result(PATIENCE)
            serving.result(PATIENCE)
        assert session.wait_closed(PATIENCE).clean
        assert arrived.empty()


def test_a_shutdown_does_not_wait_longer_than_it_was_told() -> None:
    with (
        sync.serve_streams(echo, HOST, 0) as server,
        Dialer(*place(server)) as dialer,
        dialer.open() as stream,
    ):
        bounce(stream)
        dialer.shutdown(0.01)
        assert stream.session.close_reason is not None
        assert "1 stream left" in stream.session.close_reason.message


def test_a_block_that_raises_aborts_the_sessions() -> None:
    def use(server: sync.Server) -> None:
        with Dialer(*place(server)) as dialer:
            sessions.append(dialer.session(PATIENCE))
            raise LookupError

    sessions: list[Session] = []
    with sync.serve_streams(echo, HOST, 0) as server, pytest.raises(LookupError):
        use(server)
    reason = sessions[0].close_reason
    assert reason is not None
    assert (reason.code, reason.by_peer) == (ErrorCode.INTERNAL_ERROR, False)


def test_closing_ends_every_call() -> None:
    with closed() as sock:
        changes = Changes()
        with Dialer(*sock.getsockname(), backoff=NEVER, on_change=changes) as dialer:
            changes.reach("waiting")
            with pytest.raises(TimeoutError):
                dialer.wait_closed(0.01)
            with (
                beside(dialer.open) as opening,
                beside(dialer.serve, echo) as serving,
                beside(list, dialer) as iterating,
            ):
                dialer.close()
                dialer.close()
                with pytest.raises(muxado.SessionClosed, match="the dialer is closed"):
                    opening.result(PATIENCE)
                serving.result(PATIENCE)
                assert iterating.result(PATIENCE) == []
            dialer.wait_closed(PATIENCE)
        dialer.renew()
        assert dialer.state == "closed"


def test_a_timeout_changes_nothing() -> None:
    with closed() as sock:
        changes = Changes()
        with Dialer(*sock.getsockname(), backoff=NEVER, on_change=changes) as dialer:
            changes.reach("waiting")
            for call in (dialer.session, dialer.open):
                with pytest.raises(TimeoutError):
                    call(timeout=0.01)
            with sync.serve_streams(echo, sock=sock):
                dialer.renew()
                assert dialer.call(ask, timeout=PATIENCE) == b"hello"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs an alarm clock")
@pytest.mark.parametrize("call", ["session", "open", "call", "serve", "iter", "block"])
def test_ctrl_c_ends_every_wait_and_the_block(call: str) -> None:
    class Interrupt(BaseException):
        pass

    def interrupt(number: int, frame: object) -> None:
        raise Interrupt

    def use(dialer: Dialer) -> None:
        with dialer:
            changes.reach("waiting")
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            waits: dict[str, Callable[[], object]] = {
                "session": dialer.session,
                "open": dialer.open,
                "call": lambda: dialer.call(ask),
                "serve": lambda: dialer.serve(echo),
                "iter": lambda: next(iter(dialer)),
                "block": dialer.wait_closed,
            }
            waits[call]()

    changes = Changes()
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with closed() as sock:
            dialer = Dialer(*sock.getsockname(), backoff=NEVER, on_change=changes)
            with pytest.raises(Interrupt):
                use(dialer)
        assert dialer.state == "closed"
        dialer.wait_closed(PATIENCE)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # of the stream that was cut off
@pytest.mark.parametrize("name", ["session", "open", "call", "renew"])
def test_an_interrupted_call_harms_no_later_one(name: str) -> None:
    """A signal handler may raise anywhere in a call; at worst the session ends."""

    def answer() -> bytes:
        while True:
            try:
                return dialer.call(ask, timeout=PATIENCE)
            except muxado.SessionError:
                continue  # the interrupt has cut a step of the session off

    with (
        sync.serve_streams(echo, HOST, 0) as server,
        Dialer(*place(server), backoff=QUICK) as dialer,
        ThreadPoolExecutor(1) as pool,
    ):
        calls: dict[str, Callable[[], object]] = {
            "session": dialer.session,
            "open": lambda: dialer.open().close(),
            "call": lambda: dialer.call(ask),
            "renew": dialer.renew,
        }
        dialer.session(PATIENCE)
        uncut = Places(1 << 30, Interrupt)
        with uncut.traced():
            calls[name]()
        for number in range(1, uncut.seen, max(1, uncut.seen // 20)):
            with contextlib.suppress(Interrupt), Places(number, Interrupt).traced():
                calls[name]()
            assert pool.submit(answer).result(PATIENCE) == b"hello"
        gc.collect()


@needs_fork
def test_a_forked_child_leaves_the_dialer_to_its_parent() -> None:
    with sync.serve_streams(echo, HOST, 0) as server, Dialer(*place(server)) as dialer:
        dialer.session(PATIENCE)

        def child() -> None:
            assert dialer.state == "failed"
            with pytest.raises(muxado.UsageError, match="parent"):
                dialer.open()
            dialer.__exit__(None, None, None)

        with living_child(child):
            assert dialer.call(ask) == b"hello"
        assert dialer.state == "connected"


# Telling, and wrong use


def test_a_callback_may_use_the_dialer_and_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    def on_change(state: DialerState) -> None:
        if state == "waiting":
            dialer.close()
        raise LookupError

    with closed() as sock:
        dialer = Dialer(*sock.getsockname(), backoff=NEVER, on_change=on_change)
        with dialer:
            dialer.wait_closed(PATIENCE)
    assert dialer.state == "closed"
    assert "the on_change callback of" in caplog.text


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({}, "either host and port"),
        ({"addresses": [("a", 0)]}, "port="),
        ({"dial": print, "source_address": ("a", 0)}, "source_address= is for connect()"),
        ({"host": "a", "port": 1, "timeout": 0}, "timeout="),
        ({"host": "a", "port": 1, "name": 3}, "name must be a string"),
        ({"host": "a", "port": 1, "final": 403}, "final="),
    ],
)
def test_what_cannot_be_dialled_is_refused_at_once(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(muxado.UsageError) as caught:
        Dialer(**wrong)
    assert told in str(caught.value)


def test_it_is_used_inside_of_its_block_which_is_entered_once() -> None:
    with closed() as sock:
        dialer = Dialer(*sock.getsockname())
        with pytest.raises(muxado.UsageError, match="inside of its block"):
            dialer.open()
        with dialer, pytest.raises(muxado.UsageError, match="entered once"):
            dialer.__enter__()


def test_a_dial_function_that_gives_no_session_is_final() -> None:
    def dial() -> Any:
        return None

    with Dialer(dial=dial) as dialer, pytest.raises(muxado.UsageError, match="dial= must"):
        dialer.open()


def test_a_lack_of_threads_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start
    lacking = 3

    def no_thread(thread: threading.Thread) -> None:
        nonlocal lacking
        if thread.name == "muxado dialer's session" and lacking:
            lacking -= 1
            raise RuntimeError("can't start new thread")
        start(thread)

    with sync.serve_streams(echo, HOST, 0) as server:
        monkeypatch.setattr(threading.Thread, "start", no_thread)
        with Dialer(*place(server), backoff=QUICK) as dialer:
            assert dialer.call(ask, timeout=PATIENCE) == b"hello"
            assert isinstance(dialer.last_error, RuntimeError)
    assert lacking == 0
