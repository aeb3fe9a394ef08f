"""A Unix socket over which this process's sessions can be looked at: for `muxado top`.

How it works. A thread accepts, and another one for each connection answers questions, a line of
JSON each. It only looks, by the same snapshots as `muxado.sessions`, and takes no session's lock.
Of many sessions or streams the busiest are chosen by figures that are at hand, and only these are
described: a process with 10,000 streams must not feel that somebody looks.

Questions are ``{"ask": "sessions", "most": 50}`` and ``{"ask": "streams", "session": 7, "most": 50,
"sort": "bytes"}``. An answer has figures, states, addresses and names; never payload, certificates
or keys, nor the text of a GOAWAY.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import heapq
import json
import logging
import os
import socket
import stat
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from time import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import forks
from .core import CoreStream
from .errors import UsageError
from .registry import SessionRecord, here
from .version import __version__

if TYPE_CHECKING:
    from typing import Self

__all__ = ["AdminServer", "serve_admin"]

logger: logging.Logger = logging.getLogger("muxado")

MOST_CONNECTIONS = 8
MOST_QUESTION = 4096  # bytes
MOST_ROWS = 1000  # sessions or streams in one answer
TIMEOUT = 60.0  # seconds that a connection may be silent, or leave an answer unread

# How streams can be sorted, the largest first.
SORTS: dict[str, Callable[[CoreStream], int]] = {
    "bytes": lambda stream: stream.moved,
    "age": lambda stream: -stream.opened_at,
    "unread": CoreStream.unread,
    "queued": CoreStream.queued,
}


def serve_admin(path: str | os.PathLike[str]) -> AdminServer:
    """Let this process's sessions be looked at over a Unix socket, by `muxado top`.

    It serves in threads of its own until it is closed, whatever front ends the program uses, and
    only lets look. Only this user and root can: the folder of the socket must be this user's and
    closed to others (mode 0700; it is made if it is missing), the socket has mode 0600, and the
    user of each peer is asked of the system.

    Args:
        path: where the socket is to be. A socket that a process of this user has left there, and
            that does not answer, is replaced.

    Returns:
        the server; keep it only if it is to be closed before the program ends.

    Raises:
        UsageError: this system has no Unix sockets, or doesn't tell a peer's user.
        PermissionError: the folder is open to others, or what is at the path is another user's.
        FileExistsError: there is something that is no socket.
        OSError: another process answers there (``EADDRINUSE``), or the socket can't be made.
    """
    return AdminServer(path)


class AdminServer:
    """Answers questions about this process's sessions; from `serve_admin`.

    As a context manager it is closed at the end of the block.

    Attributes:
        path: where its socket is.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Not for users."""
        if not hasattr(socket, "AF_UNIX") or not hasattr(os, "geteuid") or not _tells_users():
            raise UsageError("serve_admin() needs Unix sockets that tell a peer's user")
        self.path: str = os.fsdecode(os.path.abspath(path))
        _check_folder(Path(self.path).parent)
        _check_place(self.path)
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._closed = False
        self._connections: set[socket.socket] = set()
        self._sock = sock = socket.socket(socket.AF_UNIX)
        try:
            forks.guard(sock)
            os.fchmod(sock.fileno(), 0o600)  # from its first moment on, where systems heed it
            sock.bind(self.path)
            os.chmod(self.path, 0o600)
            sock.listen(MOST_CONNECTIONS)
            self._inode = os.lstat(self.path).st_ino
            self._thread = threading.Thread(target=self._accept, name="muxado admin", daemon=True)
            self._thread.start()
        except BaseException:
            sock.close()
            raise
        atexit.register(self.close)

    def __repr__(self) -> str:
        return f"<AdminServer {self.path!r}{' closed' if self._closed else ''}>"

    def close(self) -> None:
        """Serve no more, and remove the socket. Harmless if repeated."""
        with self._lock:
            if self._closed or os.getpid() != self._pid:  # a forked child leaves it to its parent
                return
            self._closed = True
            connections = list(self._connections)
        atexit.unregister(self.close)
        with contextlib.suppress(OSError):
            if os.lstat(self.path).st_ino == self._inode:
                os.unlink(self.path)
        for sock in (self._sock, *connections):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for it
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # The threads

    def _accept(self) -> None:
        with self._sock:
            while not self._closed:
                try:
                    sock, _ = self._sock.accept()
                except OSError as exc:
                    if self._closed or exc.errno not in (errno.EMFILE, errno.ENFILE, errno.EINTR):
                        return
                    threading.Event().wait(1.0)  # until a descriptor is free
                    continue
                forks.guard(sock)
                if not self._take_in(sock):
                    sock.close()
                    continue
                thread = threading.Thread(
                    target=self._converse, args=(sock,), name="muxado admin", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError as exc:
                    logger.warning("there is no thread for who looks at the sessions: %s", exc)
                    self._let_go(sock)

    def _take_in(self, sock: socket.socket) -> bool:
        """Return whether a connection is one to answer."""
        user = peer_user(sock)
        if user not in (os.geteuid(), 0):
            logger.warning("user %s may not look at the sessions", user)
            return False
        with self._lock:
            if self._closed or len(self._connections) >= MOST_CONNECTIONS:
                return False
            self._connections.add(sock)
        return True

    def _let_go(self, sock: socket.socket) -> None:
        with self._lock:
            self._connections.discard(sock)
        sock.close()

    def _converse(self, sock: socket.socket) -> None:
        try:
            sock.settimeout(TIMEOUT)
            with sock.makefile("rb") as questions:
                while line := questions.readline(MOST_QUESTION):
                    sock.sendall(json.dumps(answer(line)).encode() + b"\n")
        except OSError:
            pass  # who looked has left
        except Exception:
            logger.exception("a question about the sessions failed")
        finally:
            self._let_go(sock)


# What is answered


def answer(line: bytes) -> dict[str, object]:
    """Return the answer to a question, {"error": ...} if it can't be understood."""
    try:
        question = json.loads(line)
        asked = question["ask"]
        most = question.get("most", 50)
        if type(most) is not int or not 0 <= most <= MOST_ROWS:
            return {"error": f"most is a number from 0 to {MOST_ROWS}"}
        if asked == "sessions":
            return _sessions(most)
        if asked == "streams":
            return _streams(question["session"], most, question.get("sort", "bytes"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    return {"error": "no such question"}


def _payload(record: SessionRecord) -> int:
    """Return how many payload bytes a session has sent and received."""
    stats = record.core.stats()
    return stats.bytes_sent + stats.bytes_received


def _sessions(most: int) -> dict[str, object]:
    records = here.records()
    busiest = heapq.nlargest(most, records, key=_payload)
    return {
        "process": os.getpid(),
        "program": os.path.basename(sys.argv[0]) if sys.argv else "",
        "muxado": __version__,
        "now": time(),
        "count": len(records),
        "streams": sum(record.core.table.live for record in records),
        "sessions": [_session(record) for record in sorted(busiest, key=lambda each: each.number)],
    }


def _session(record: SessionRecord) -> dict[str, object]:
    snapshot = record.snapshot()
    stats = vars(snapshot.stats)
    return vars(snapshot) | {
        "local_address": address_text(snapshot.local_address),
        "remote_address": address_text(snapshot.remote_address),
        "stats": {name: value for name, value in stats.items() if not name.endswith("_by_code")},
    }


def _streams(number: object, most: int, sort: str) -> dict[str, object]:
    key = SORTS[sort]
    for record in here.records():
        if record.number == number:
            now = record.now()
            streams = record.core.table.list_streams()
            chosen = heapq.nlargest(most, streams, key=key)
            return {
                "now": time(),
                "session": number,
                "count": len(streams),
                "streams": [vars(stream.snapshot(now)) for stream in chosen],
            }
    return {"error": "no such session"}


def address_text(address: Any) -> str:
    """Return an address in words, "" for none."""
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    if isinstance(address, bytes):
        return address.decode("utf-8", "backslashreplace")
    return "" if address is None else str(address)


# Who may ask


def _tells_users() -> bool:
    return hasattr(socket, "SO_PEERCRED") or sys.platform == "darwin"


def peer_user(sock: socket.socket) -> int | None:
    """Return the number of the user at the other end of a Unix socket, None if it is unknown."""
    try:
        if hasattr(socket, "SO_PEERCRED"):
            found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            return int(struct.unpack("3i", found)[1])
        # LOCAL_PEERCRED of macOS: a version, the user, and groups.
        return int(struct.unpack_from("=II", sock.getsockopt(0, 1, 76))[1])
    except (OSError, struct.error):
        return None


def _check_folder(folder: Path) -> None:
    """Make the socket's folder, or see that it is closed to others."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise PermissionError(
            errno.EPERM, "the socket's folder must be this user's own, with mode 0700", str(folder)
        )


def _check_place(path: str) -> None:
    """See that nothing is at a path, or remove a socket of ours that does not answer."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise FileExistsError(errno.EEXIST, "there is something that is no socket", path)
    if found.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "there is another user's socket", path)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        try:
            sock.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # so many wait for it that it must be alive
    raise OSError(errno.EADDRINUSE, "another process answers there", path)
