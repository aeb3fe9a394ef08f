"""The inside of a listener for threads: takes connections, and makes sessions of them."""

from __future__ import annotations

import contextlib
import logging
import queue
import selectors
import socket
import ssl as ssl_module
import threading
from threading import Thread
from typing import Any

from ..config import Config
from ..endpoint import HANDSHAKE_TIMEOUT, MOST_PENDING
from .session import Session, server

logger: logging.Logger = logging.getLogger("muxado")

PAUSE = 0.1  # seconds, after a failure to accept a connection


class Intake:
    """A thread that accepts connections, and short-lived ones that greet them.

    It knows nothing of its listener, which its thread would keep alive otherwise.

    Attributes:
        sockets: the listening sockets; closed by the thread when it ends.
        closed: set once it is to end.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        context: ssl_module.SSLContext | None,
        config: Config | None,
    ) -> None:
        self.sockets = sockets
        self.closed: threading.Event = threading.Event()
        self._context = context
        self._config = config
        self._sessions: queue.SimpleQueue[Session | None] = queue.SimpleQueue()
        # Connections in their handshake, or waiting for accept().
        self._slots = threading.Semaphore(MOST_PENDING)
        self._bell, self._bell_rope = socket.socketpair()
        for sock in sockets:
            sock.setblocking(False)
        self._thread = Thread(target=self._run, name="muxado listener", daemon=True)
        self._thread.start()

    def next(self, timeout: float | None) -> Session | None:
        """Wait for a session; return None if this is closed.

        Raises:
            TimeoutError: none came within `timeout` seconds.
        """
        try:
            session = self._sessions.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError("timed out") from None
        if session is None:
            self._sessions.put(None)  # for the others who wait
            return None
        self._slots.release()
        return session

    def close(self) -> None:
        """Let the thread end; it waits for nothing and takes no lock: finalizers call it."""
        self.closed.set()
        with contextlib.suppress(OSError):
            self._bell_rope.send(b"\0")
        self._slots.release()  # the thread may wait for one

    def join(self) -> None:
        """Wait until the sockets are closed and the sessions that nobody took aborted."""
        self._thread.join()
        self._close_sockets()  # in a forked child there is no thread that has done it

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for sock in (self._bell, *self.sockets):
                selector.register(sock, selectors.EVENT_READ)
            while not self.closed.is_set():
                for key, _ in selector.select():
                    assert isinstance(key.fileobj, socket.socket)
                    if key.fileobj is self._bell:
                        self._bell.recv(1)  # a forked child's close() rings here too
                    else:
                        self._take(key.fileobj)
        self._close_sockets()
        self._abort_waiting()

    def _close_sockets(self) -> None:
        for sock in (self._bell, self._bell_rope, *self.sockets):
            sock.close()

    def _take(self, listening: socket.socket) -> None:
        self._slots.acquire()
        try:
            sock, peer = listening.accept()
        except OSError as exc:
            self._slots.release()
            if not isinstance(exc, (BlockingIOError, ConnectionAbortedError)):
                self._pause(exc)
            return
        try:
            name = "muxado handshake"
            Thread(target=self._greet, args=(sock, peer), name=name, daemon=True).start()
        except RuntimeError as exc:
            self._dismiss(sock)
            self._pause(exc)

    def _pause(self, exc: Exception) -> None:
        # Out of descriptors, say, or of threads: others may free some.
        logger.warning("accepting a connection failed: %s", exc)
        self.closed.wait(PAUSE)

    def _greet(self, sock: socket.socket, peer: Any) -> None:
        try:
            sock.settimeout(HANDSHAKE_TIMEOUT)
            if self._context is not None:
                sock.getpeername()  # gone already? wrap_socket would leave its socket unclosed
                sock = self._context.wrap_socket(sock, server_side=True)
            session = server(sock, config=self._config)
        except OSError as exc:  # ssl.SSLError and TimeoutError too
            logger.info("handshake with %s failed: %r", peer, exc)
            self._dismiss(sock)
        except RuntimeError as exc:
            logger.warning("there is no thread for a session with %s: %s", peer, exc)
            self._dismiss(sock)
        else:
            self._sessions.put(session)
            if self.closed.is_set():
                self._abort_waiting()

    def _dismiss(self, sock: socket.socket) -> None:
        sock.close()
        self._slots.release()

    def _abort_waiting(self) -> None:
        """Abort the sessions that nobody took, and tell those who wait that no more come."""
        with contextlib.suppress(queue.Empty):
            while True:
                session = self._sessions.get_nowait()
                if session is not None:
                    session.abort()
        self._sessions.put(None)
