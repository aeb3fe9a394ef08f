"""What a forked child keeps of its parent's sockets: nothing that holds a connection open."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from muxado import forks
from muxado.config import Config
from muxado.core import CoreSession
from muxado.errors import SessionError

from .forking import living_child, needs_fork


def test_a_descriptor_is_a_number_or_minus_1() -> None:
    near, far = socket.socketpair()
    with near, far:
        assert forks.descriptor(near) == near.fileno()
    assert forks.descriptor(near) == -1
    assert forks.descriptor(object()) == -1


@pytest.mark.skipif(os.name == "nt", reason="a socket of Windows is no file")
def test_a_disconnected_socket_is_at_its_end_and_its_number_stays_taken() -> None:
    near, far = socket.socketpair()
    with near, far:
        number = near.fileno()
        forks.disconnect([number, -1])
        assert far.recv(1) == b""  # no copy of it is left
        assert near.recv(1) == b""
        with pytest.raises(BrokenPipeError):
            near.send(b"x")
        with socket.socket() as other:
            assert other.fileno() != number


def test_a_disowned_session_says_whose_it_is() -> None:
    core = CoreSession(client=True, config=Config(), now=0.0)
    forks.disown(core, 1.0)
    with pytest.raises(SessionError, match="parent process"):
        core.open()


@needs_fork
def test_a_child_keeps_no_copy_of_a_socket_that_is_guarded() -> None:
    near, far = socket.socketpair()
    with far, near:
        forks.guard(near)
        with living_child():
            near.close()
            assert far.recv(1) == b""  # though the child lives


class Owner:
    """Something with a descriptor, and a lock that is held while it changes."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.lock = threading.RLock()

    def forget_in_child(self) -> None:
        forks.disconnect([self.sock.fileno()])
        self.sock.close()


class Failing(Owner):
    def forget_in_child(self) -> None:
        raise ValueError("of one owner")


@needs_fork
def test_a_child_has_each_owner_forget_what_it_has_though_another_fails() -> None:
    near, far = socket.socketpair()
    with near, far:
        owners = [Failing(near), Owner(near)]
        for owner in owners:
            forks.watch(owner, owner.lock)
        with living_child():
            for owner in owners:  # the fork has let go of them
                assert owner.lock.acquire(timeout=0)
                owner.lock.release()
            near.close()
            assert far.recv(1) == b""
