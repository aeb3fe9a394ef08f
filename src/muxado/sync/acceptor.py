"""The inside of a listener for threads: takes connections, and makes sessions of them."""

from __future__ import annotations

import contextlib
import errno
import logging
import queue
import selectors
import socket
import threading
from collections.abc import Callable
from ssl import SSLContext
from threading import Thread
from typing import Any, TypeAlias

from .. import forks
from ..admission import Admission
from ..config import Config
from ..endpoint import ACCEPT_RETRY, HANDSHAKE_TIMEOUT, MOST_PENDING, Place
from ..errors import ProtocolError
from ..handshakes import Handshakes, hung_up
from ..layers import Layer
from ..proxy_protocol import ProxyHeader, TrustedProxies
from ..snapshots import ServerStats
from .connecting import new_session
from .locks import PIECE, deadline_of, join, rest_of
from .session import Session

logger: logging.Logger = logging.getLogger("muxado")

Upgrade: TypeAlias = Callable[[socket.socket, float | None], Layer]
"""Does the handshake of what a listener's sessions go over, in the time that there is."""


class _Newcomer:
    """A connection in its handshake.

    Attributes:
        sock: its socket, and then the TLS over that.
        given_up: set when it is to end.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.given_up = False

    def hang_up(self) -> None:
        """End the connection both ways, whatever its own thread is at."""
        self.given_up = True
        with contextlib.suppress(OSError):
            # Not the method of an SSLSocket, which would take the TLS from under that thread.
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


class Acceptor:
    """A thread that accepts connections, and short-lived ones that greet them.

    It knows nothing of its listener, which its thread would keep alive otherwise. Connections
    in their TLS handshake are bounded by giving up one of them for a new one; sessions that
    wait to be accepted, by leaving further connections to the kernel.

    Attributes:
        sockets: the listening sockets; closed by the thread when it ends.
        config: the sessions' settings.
        closed: set once it is to end.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        place: Place,
        config: Config | None,
        admission: Admission,
        upgrade: Upgrade | None,
    ) -> None:
        self.sockets = sockets
        self.config: Config = config or Config()
        self.closed: threading.Event = threading.Event()
        self._context = place.context
        self._proxies = place.proxies
        self._upgrade = upgrade
        self._greets = bool(place.context or place.proxies or upgrade)
        self._admission = admission
        self._sessions: queue.SimpleQueue[Session | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # for what follows; held by threads of our own only
        self._handshakes: Handshakes[_Newcomer] = Handshakes(MOST_PENDING)
        self._greeting = 0  # connections without a handshake that are to become sessions
        self._full = False  # the thread waits until fewer sessions wait
        self._wakeup, self._wakeup_send = socket.socketpair()
        for sock in sockets:
            sock.setblocking(False)
            forks.guard(sock)
        self._thread = Thread(target=self._run, name="muxado listener", daemon=True)
        self._thread.start()

    def next(self, timeout: float | None) -> Session | None:
        """Wait for a session; return None if this is closed.

        Raises:
            TimeoutError: none came within `timeout` seconds.
        """
        deadline = deadline_of(timeout)
        while True:
            rest = rest_of(deadline)
            try:
                session = self._sessions.get(timeout=PIECE if rest is None else min(PIECE, rest))
                break
            except queue.Empty:
                if rest == 0:
                    raise TimeoutError("timed out") from None
        if session is None:
            self._sessions.put(None)  # for the others who wait
            return None
        self._wake_if_full()
        return session

    def count(self) -> int:
        """Return how many sessions wait to be accepted."""
        return 0 if self.closed.is_set() else self._sessions.qsize()

    def stats(self) -> ServerStats:
        """Return the figures of all of it."""
        return self._admission.stats(len(self._handshakes))

    def close(self) -> None:
        """Let the thread end; it waits for nothing and takes no lock: finalizers call it."""
        self.closed.set()
        self._wake_thread()

    def join(self) -> None:
        """Wait until the sockets are closed, and the sessions that no call took are aborted."""
        join(self._thread)
        self._close_sockets()  # in a forked child there is no thread that has done it

    def _wake_thread(self) -> None:
        with contextlib.suppress(OSError):
            self._wakeup_send.send(b"\0")

    def _wake_if_full(self) -> None:
        if self._full:
            self._wake_thread()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for sock in (self._wakeup, *self.sockets):
                selector.register(sock, selectors.EVENT_READ)
            while not self.closed.is_set():
                self._full = True  # before the look, or a ring could be missed
                if self._sessions.qsize() + self._greeting >= MOST_PENDING:
                    self._wakeup.recv(1)
                    continue
                self._full = False
                for key, _ in selector.select():
                    assert isinstance(key.fileobj, socket.socket)
                    if key.fileobj is self._wakeup:
                        self._wakeup.recv(1)  # a forked child's close() wakes this thread too
                    else:
                        self._take(key.fileobj)
        self._close_sockets()
        self._abort_waiting()

    def _close_sockets(self) -> None:
        for sock in (self._wakeup, self._wakeup_send, *self.sockets):
            sock.close()

    def _take(self, listening: socket.socket) -> None:
        try:
            sock, peer = listening.accept()
        except OSError as exc:
            if isinstance(exc, (BlockingIOError, ConnectionAbortedError)):
                return
            if exc.errno in (errno.EMFILE, errno.ENFILE):
                with self._lock:
                    given_up = self._handshakes.oldest()
                if given_up is not None:
                    given_up.hang_up()  # it has a descriptor to spare
            self._pause(exc)
            return
        forks.guard(sock)
        newcomer = _Newcomer(sock)
        given_up = None
        with self._lock:
            if self._greets:
                given_up = self._handshakes.begin(newcomer)
            else:
                self._greeting += 1
        if given_up is not None:
            given_up.hang_up()
        try:
            name = "muxado handshake"
            Thread(target=self._greet, args=(newcomer, peer), name=name, daemon=True).start()
        except RuntimeError as exc:
            sock.close()
            self._greeted(newcomer)
            self._pause(exc)

    def _pause(self, exc: Exception) -> None:
        # Out of descriptors, say, or of threads: others may free some.
        logger.warning("accepting a connection failed: %s", exc)
        self.closed.wait(ACCEPT_RETRY)

    def _greet(self, newcomer: _Newcomer, peer: Any) -> None:
        header: ProxyHeader | None = None
        try:
            if self._proxies is not None:
                header = _read_proxy_header(newcomer.sock, self._proxies)
            newcomer.sock.settimeout(HANDSHAKE_TIMEOUT)
            if self._context or self._upgrade:
                self._hear(newcomer)
            if self._context is not None:
                self._secure(newcomer, self._context)
            layer: Layer | None = None
            if self._upgrade is not None:
                layer = self._upgrade(newcomer.sock, deadline_of(HANDSHAKE_TIMEOUT))
            session, driver = new_session(
                newcomer.sock,
                client=False,
                config=self.config,
                pool=self._admission.pool,
                proxy_header=header,
                layer=layer,
            )
        except (OSError, EOFError, ProtocolError) as exc:  # ssl.SSLError and TimeoutError too
            self._admission.handshake_failed(peer, exc)
            newcomer.sock.close()
        except RuntimeError as exc:
            logger.warning("there is no thread for a session with %s: %s", peer, exc)
            newcomer.sock.close()
        else:
            if self._admission.admit(driver.record):
                self._sessions.put(session)
            else:
                driver.refuse()
                session.wait_closed()
            if self.closed.is_set():
                self._abort_waiting()
        self._greeted(newcomer)

    def _hear(self, newcomer: _Newcomer) -> None:
        """Wait until a connection has said something, and leave that unread."""
        sock = newcomer.sock
        sock.getpeername()  # gone already? wrap_socket would leave its socket unclosed
        if not sock.recv(1, socket.MSG_PEEK):
            raise hung_up()
        with self._lock:
            self._handshakes.spoke(newcomer)

    def _secure(self, newcomer: _Newcomer, context: SSLContext) -> None:
        """Lay TLS over a connection."""
        sock = newcomer.sock
        secured = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        forks.guard(secured)
        newcomer.sock = secured
        if newcomer.given_up:  # perhaps while neither of the two had the descriptor
            raise ConnectionResetError(errno.ECONNRESET, "given up for another connection")
        secured.do_handshake()

    def _greeted(self, newcomer: _Newcomer) -> None:
        with self._lock:
            if self._greets:
                self._handshakes.end(newcomer)
            else:
                self._greeting -= 1
        self._wake_if_full()

    def _abort_waiting(self) -> None:
        """Abort the sessions that no call took, and tell the calls that wait that no more come."""
        with contextlib.suppress(queue.Empty):
            while True:
                session = self._sessions.get_nowait()
                if session is not None:
                    session.abort()
        self._sessions.put(None)


def _read_proxy_header(sock: socket.socket, proxies: TrustedProxies) -> ProxyHeader:
    """Read the header that a connection through a proxy begins with."""
    proxies.check(sock)
    deadline = deadline_of(HANDSHAKE_TIMEOUT)
    header = ProxyHeader()
    while header.wanted:
        rest = rest_of(deadline)
        if not rest:
            raise TimeoutError("timed out")
        sock.settimeout(rest)
        header.feed(sock.recv(header.wanted))
    return header
