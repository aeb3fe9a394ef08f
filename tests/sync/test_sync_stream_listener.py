"""A session as a listening socket, and the servers that select on it."""

from __future__ import annotations

import select
import socketserver
import threading

import pytest

from muxado.adapters.socketserver import SessionMixIn
from muxado.adapters.websockets import ListeningSocket

from .conftest import Ends
from .helpers import PATIENCE, background


def is_ready(ends: Ends) -> bool:
    """Return whether the server's listener is readable, once all has arrived there."""
    client, server = ends
    client.ping(PATIENCE)
    server.stats()  # waits for the turn that has answered the ping
    return bool(select.select([server.listener()], [], [], 0)[0])


def test_a_stream_that_is_reset_makes_the_listener_unreadable_again(ends: Ends) -> None:
    client, server = ends
    listener = server.listener()
    with client.open(eager=True) as first, client.open(eager=True) as second:
        assert is_ready(ends)
        first.reset()
        assert is_ready(ends)
        second.reset()
        assert not is_ready(ends)
    with pytest.raises(BlockingIOError):
        listener.accept_nowait()


def test_closing_a_listener_ends_its_accept(ends: Ends) -> None:
    client, server = ends
    listener = server.listener()
    with background(listener.accept) as accepting:
        while not server._acceptors:
            client.ping(PATIENCE)
        listener.close()
        with pytest.raises(OSError, match="closed"):
            accepting.result(PATIENCE)
    with pytest.raises(OSError, match="closed"):
        listener.accept()
    with client.open(eager=True) as stream, server.accept(PATIENCE) as other:
        assert other.id == stream.id


def test_a_socketserver_never_waits_in_accept(ends: Ends) -> None:
    asked = threading.Event()

    class Eager(SessionMixIn, socketserver.ThreadingTCPServer):
        """Asks for a stream although none waits, as if it had been reset just now."""

        def service_actions(self) -> None:
            with pytest.raises(BlockingIOError):
                self.get_request()
            asked.set()

    with Eager(ends[1], socketserver.StreamRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        assert asked.wait(PATIENCE)
        server.shutdown()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_websockets_server_that_waits_in_accept_can_be_shut_down(ends: Ends) -> None:
    client, server = ends
    listening = ListeningSocket(server)
    with background(listening.accept) as accepting:
        while not server._acceptors:
            client.ping(PATIENCE)
        listening.close()
        with pytest.raises(OSError, match="closed"):
            accepting.result(PATIENCE)
