"""How sessions end, and what is left of them."""

from __future__ import annotations

import queue
import socket
import threading
from typing import Any

import pytest

from muxado import sync

from .helpers import PATIENCE


class Faulty(socket.socket):
    """A transport of the user's, with a bug in it."""

    def recv_into(self, *args: Any) -> int:
        raise ZeroDivisionError("on purpose")


def test_a_fault_in_the_io_thread_is_the_sessions_end(monkeypatch: pytest.MonkeyPatch) -> None:
    reports: queue.SimpleQueue[threading.ExceptHookArgs] = queue.SimpleQueue()
    monkeypatch.setattr(threading, "excepthook", reports.put)
    near, far = socket.socketpair()
    with far, sync.client(Faulty(fileno=near.detach())) as session:
        far.sendall(b"x")
        session.wait_closed(PATIENCE)
        assert session.close_reason is not None
        assert isinstance(session.close_reason.exception, ZeroDivisionError)
        assert "on purpose" in session.close_reason.message
    assert reports.get(timeout=PATIENCE).exc_type is ZeroDivisionError


def test_the_descriptor_is_closed_when_waiting_for_that_returns() -> None:
    for _ in range(20):
        near, far = socket.socketpair()
        with far, sync.client(near) as session:
            session.abort()
            session.wait_closed(PATIENCE)
            assert near.fileno() == -1
