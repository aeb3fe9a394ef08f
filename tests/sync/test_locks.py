"""How threads wait: until a deadline, until they are woken, and not in a callback."""

from __future__ import annotations

import threading
from time import monotonic

import pytest

from muxado.errors import UsageError
from muxado.sync.locks import (
    Waiter,
    acquire,
    calling_back,
    deadline_of,
    from_a_handler,
    holder_test,
    is_ours,
    join,
    rest_of,
)


def test_a_deadline_is_a_time_and_none_is_never() -> None:
    assert deadline_of(None) is None
    assert rest_of(None) is None
    before = monotonic()
    deadline = deadline_of(1000.0)
    assert deadline is not None
    assert deadline >= before + 1000
    rest = rest_of(deadline)
    assert rest is not None
    assert 0 < rest <= 1000
    assert rest_of(before - 1) == 0
    assert rest_of(before + 1e300) == threading.TIMEOUT_MAX


def test_a_lock_that_is_held_is_given_up_at_the_deadline() -> None:
    lock = threading.Lock()
    assert acquire(lock, None)
    assert not acquire(lock, monotonic() - 1)
    assert not acquire(lock, monotonic() + 0.01)
    lock.release()
    assert acquire(lock, monotonic() - 1)


def test_only_the_thread_that_holds_a_lock_is_told_so() -> None:
    lock = threading.RLock()
    holds = holder_test(lock)
    assert not holds()
    with lock:
        assert holds()
        others: list[bool] = []
        other = threading.Thread(target=lambda: others.append(holds()))
        other.start()
        assert join(other)
        assert others == [False]


def test_a_thread_that_goes_on_is_not_waited_for_beyond_the_deadline() -> None:
    may_end = threading.Event()
    thread = threading.Thread(target=may_end.wait)
    thread.start()
    assert not join(thread, monotonic() - 1)
    assert not join(thread, monotonic() + 0.01)
    may_end.set()
    assert join(thread)
    assert join(thread, monotonic() - 1)


def test_a_wake_counts_though_it_comes_before_the_wait_and_twice_is_once() -> None:
    waiter = Waiter()
    assert waiter.thread == threading.get_ident()
    waiter.wake()
    waiter.wake()
    assert waiter.wait(None)
    assert not waiter.wait(monotonic() - 1)
    waker = threading.Thread(target=waiter.wake)
    waker.start()
    assert waiter.wait(None)
    assert join(waker)


def test_a_callback_must_not_wait() -> None:
    calling_back.add(threading.get_ident())
    try:
        with pytest.raises(UsageError, match="must not wait"):
            Waiter()
    finally:
        calling_back.remove(threading.get_ident())


def test_an_error_of_a_signals_handler_is_told_from_the_systems() -> None:
    assert from_a_handler(TimeoutError("of a handler"))
    assert not from_a_handler(TimeoutError(110, "of the system"))
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(from_a_handler(TimeoutError("x"))))
    thread.start()
    assert join(thread)
    assert found == [False]  # handlers run in the main thread only


def test_an_error_of_a_programs_frames_is_not_ours() -> None:
    with pytest.raises(ValueError, match="here") as caught:
        raise ValueError("here")
    assert not is_ours(caught.value)
    assert is_ours(ValueError("of no frame"))
