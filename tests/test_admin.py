"""Looking at a process over its admin socket: what it tells, and who may ask."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import muxado
import muxado.admin
import muxado.sync
import muxado.testing
from muxado.admin import address_text, answer, peer_user
from tests.certificates import Tls
from tests.forking import living_child, needs_fork
from tests.patience import patience

pytestmark = pytest.mark.skipif(
    not hasattr(socket, "SO_PEERCRED") and sys.platform != "darwin", reason="no peer credentials"
)

PATIENCE = patience(10)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a name short enough for a socket's."""
    with tempfile.TemporaryDirectory(prefix="mux") as name:
        yield Path(name)


@pytest.fixture
def path(folder: Path) -> Path:
    return folder / "admin" / "socket"


def reach(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    sock.connect(str(path))
    return sock


def ask(path: Path, **question: object) -> dict[str, Any]:
    with reach(path) as sock, sock.makefile("rwb") as file:
        file.write(json.dumps(question).encode() + b"\n")
        file.flush()
        found: dict[str, Any] = json.loads(file.readline())
        return found


def test_sessions_and_streams_are_told_of(path: Path) -> None:
    with muxado.serve_admin(path), muxado.testing.sync_pair() as (near, _):
        near.name = "looked at"
        kept = [near.open(eager=True) for _ in range(5)]
        kept[3].sendall(bytes(1000))
        told = ask(path, ask="sessions")
        assert told["process"] == os.getpid()
        (found,) = [each for each in told["sessions"] if each["name"] == "looked at"]
        assert (found["role"], found["wire"], found["state"]) == ("client", "muxado v2", "open")
        assert found["stats"]["streams"] == 5
        streams = ask(path, ask="streams", session=found["id"], most=2)
        assert (streams["count"], len(streams["streams"])) == (5, 2)
        busiest = streams["streams"][0]
        assert (busiest["id"], busiest["bytes_sent"], busiest["direction"]) == (9, 1000, "out")
        for stream in kept:
            stream.close()


def test_the_socket_is_for_its_user_alone(path: Path) -> None:
    with muxado.serve_admin(path) as server:
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert server.path == str(path)
        assert repr(server) == f"<AdminServer {str(path)!r}>"
    assert not path.exists()
    server.close()


def test_another_user_gets_no_answer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with muxado.serve_admin(path), reach(path) as sock:
        sock.sendall(b'{"ask": "sessions"}\n')
        assert sock.recv(10)
        monkeypatch.setattr(muxado.admin, "peer_user", lambda _: os.geteuid() + 1)
        with reach(path) as other:
            assert other.recv(10) == b""


def test_a_peers_user_is_asked_of_the_system() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert peer_user(one) == os.geteuid()
    with socket.socket(socket.AF_INET) as sock:
        assert peer_user(sock) in (None, 2**32 - 1, -1)


def test_an_open_folder_is_refused(folder: Path) -> None:
    folder.chmod(0o755)
    with pytest.raises(PermissionError, match="mode 0700"):
        muxado.serve_admin(folder / "socket")
    assert not (folder / "socket").exists()


def test_a_socket_that_nothing_answers_at_is_replaced(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        left.listen()
    with muxado.serve_admin(path):
        assert "sessions" in ask(path, ask="sessions")


def test_a_socket_that_answers_is_left_alone(path: Path) -> None:
    with muxado.serve_admin(path):
        with pytest.raises(OSError, match="another process answers") as caught:
            muxado.serve_admin(path)
        assert caught.value.errno == errno.EADDRINUSE
        assert "sessions" in ask(path, ask="sessions")


def test_a_socket_whose_backlog_is_full_is_left_alone(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        waiting = []
        for _ in range(3):
            sock = socket.socket(socket.AF_UNIX)
            waiting.append(sock)
            sock.setblocking(False)
            try:
                sock.connect(str(path))
            except BlockingIOError:
                break
        with pytest.raises(OSError, match="another process answers"):
            muxado.serve_admin(path)
        for sock in waiting:
            sock.close()
    assert path.exists()


def test_what_is_no_socket_is_left_alone(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_text("precious")
    with pytest.raises(FileExistsError):
        muxado.serve_admin(path)
    assert path.read_text() == "precious"


def test_closing_leaves_what_another_has_put_there(path: Path) -> None:
    server = muxado.serve_admin(path)
    path.rename(path.with_name("kept"))  # so that its inode is not used again
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        server.close()
        assert path.exists()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{",
        b"[]\n",
        b'"ask"\n',
        b'{"ask": "secrets"}\n',
        b'{"ask": "streams"}\n',
        b'{"ask": "streams", "session": "x"}\n',
        b'{"ask": "streams", "session": 1, "sort": "colour"}\n',
        b'{"ask": "streams", "session": 1, "sort": []}\n',
        b'{"ask": "sessions", "most": -1}\n',
        b'{"ask": "sessions", "most": 1e9}\n',
        b'{"ask": "sessions", "most": true}\n',
        b"\xff\xfe\n",
        b"[" * 4000,
    ],
)
def test_nonsense_gets_an_error(line: bytes) -> None:
    assert list(answer(line)) == ["error"]


def test_a_question_without_end_is_not_waited_for(path: Path) -> None:
    with muxado.serve_admin(path), reach(path) as sock:
        sock.sendall(b"x" * 4096)
        assert "error" in json.loads(sock.makefile("rb").readline())


def test_connections_beyond_a_few_are_hung_up_on(path: Path) -> None:
    with muxado.serve_admin(path):
        kept = [reach(path) for _ in range(muxado.admin.MOST_CONNECTIONS)]
        for sock in kept:
            sock.sendall(b"{}\n")
            assert sock.recv(100)
        with reach(path) as one_more:
            assert one_more.recv(1) == b""
        kept.pop().close()
        # Its place is free once its thread has noticed.
        turn = threading.Event()
        for _ in range(int(PATIENCE * 1000)):
            with reach(path) as again:
                try:
                    again.sendall(b"{}\n")
                    if again.recv(100):
                        break
                except OSError:
                    pass
            turn.wait(0.001)
        else:
            raise AssertionError("no place became free")
        for sock in kept:
            sock.close()


def test_no_payload_and_no_secret_is_told(path: Path) -> None:
    tls = Tls()
    with (
        muxado.serve_admin(path),
        muxado.sync.serve(
            muxado.sync.Session.wait_closed, "127.0.0.1", 0, ssl=tls.mutual_server
        ) as server,
        muxado.sync.connect(*server.addresses[0], ssl=tls.mutual_client) as session,
    ):
        stream = session.open()
        stream.sendall(b"attack at dawn")
        session.ping(PATIENCE)
        session.go_away(7, b"the password is swordfish")
        session.ping(PATIENCE)
        sessions = ask(path, ask="sessions")
        everything = json.dumps(sessions)
        for each in sessions["sessions"]:
            everything += json.dumps(ask(path, ask="streams", session=each["id"]))
        stream.reset()
    assert str(session.remote_address[1]) in everything
    for secret in ("dawn", "swordfish", "BEGIN", "client@example.org"):
        assert secret not in everything


def test_addresses_are_told_in_words() -> None:
    addresses = [("192.0.2.1", 80), ("::1", 80, 0, 0), "/a/path", b"\0abstract", None]
    assert [address_text(each) for each in addresses] == [
        "192.0.2.1:80",
        "[::1]:80",
        "/a/path",
        "\0abstract",
        "",
    ]


def test_the_socket_goes_with_its_program(path: Path) -> None:
    program = (
        f"import muxado, os; muxado.serve_admin({str(path)!r});"
        f" assert os.path.exists({str(path)!r}); print('served')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=patience(30),
        check=False,
    )
    assert (done.stdout, done.stderr) == ("served\n", "")
    assert not path.exists()


@needs_fork
def test_a_forked_child_leaves_the_socket_to_its_parent(path: Path) -> None:
    with muxado.serve_admin(path) as server, living_child(server.close):
        assert "sessions" in ask(path, ask="sessions")
