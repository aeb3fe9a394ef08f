"""What sessions do when a process forks or ends."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable

import pytest

import muxado
from muxado import Config, sync
from muxado.sync import Stream, StreamListener
from tests.certificates import Tls
from tests.forking import living_child

from .conftest import Ends
from .helpers import PATIENCE, background, echo, opened, until_written

MIB = 1024 * 1024

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def run(program: str) -> None:
    """Run a program that must end by itself, well and quietly."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", textwrap.dedent(program)],
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"done\n", b"")


def test_a_program_ends_with_its_sessions_open() -> None:
    run(
        """
        import threading
        from muxado import sync

        def echo(stream):
            while data := stream.recv(100):
                stream.sendall(data)

        server = sync.serve(lambda session: session.serve(echo), "127.0.0.1", 0)
        sessions = [sync.connect(*server.addresses[0]) for _ in range(10)]
        streams = [session.open() for session in sessions]
        for stream in streams:
            stream.sendall(b"x")
            assert stream.recv(1) == b"x"
            threading.Thread(target=stream.recv, args=(1,), daemon=True).start()
            stream.makefile("rwb")
            sock = stream.session.open().to_socket()
            sock.sendall(b"y")
            assert sock.recv(1) == b"y"
            sock.detach()
        sessions[0].listener()
        listener = sync.listen("127.0.0.1", 0)
        print("done")
        """
    )


def test_a_program_ends_quickly_with_unread_data() -> None:
    run(
        """
        import socket
        from muxado import sync

        near, far = socket.socketpair()
        far.detach()  # open, and never read
        session = sync.client(near)
        stream = session.open()
        stream.sendall(bytes(10_000_000))
        print("done")
        """
    )


def test_a_program_with_threads_in_the_midst_of_their_work() -> None:
    run(
        """
        import threading
        from muxado.testing import sync_pair

        pair = sync_pair()
        client, server = pair.__enter__()

        def send(stream):
            while True:
                stream.sendall(bytes(1000))

        def receive(stream, arrived):
            while stream.recv(5000):
                arrived.set()

        for _ in range(5):
            stream, arrived = client.open(eager=True), threading.Event()
            threading.Thread(target=send, args=(stream,), daemon=True).start()
            other = server.accept()
            threading.Thread(target=receive, args=(other, arrived), daemon=True).start()
            assert arrived.wait()
        print("done")
        """
    )


def test_a_fork_misses_no_session_that_is_just_being_made() -> None:
    run(
        """
        import os, socket, threading, warnings

        warnings.simplefilter("ignore", DeprecationWarning)
        sessions = []
        makers = []

        def make():
            near, far = socket.socketpair()
            far.detach()
            sessions.append(sync.client(near))

        def meanwhile():
            makers.append(threading.Thread(target=make, daemon=True))
            makers[0].start()
            makers[0].join(0.1)

        os.register_at_fork(before=meanwhile)  # what is registered first is called last
        from muxado import sync

        pid = os.fork()
        if not pid:
            os._exit(any(not session.closed for session in sessions))
        assert os.waitpid(pid, 0)[1] == 0
        makers[0].join()
        sessions[0].abort()
        sessions[0].wait_closed()
        print("done")
        """
    )


def test_a_fork_leaves_the_session_to_the_parent(ends: Ends) -> None:
    client, server = ends
    with opened(*ends) as (near, far), background(echo, far):
        near.sendall(b"before")
        assert near.recv(6) == b"before"
        waiting = client.open(eager=True)
        server.ping(PATIENCE)
        assert _in_child(lambda: _child_sees_the_end(ends, near.id)) == 0
        near.sendall(b"after")
        assert near.recv(5) == b"after"
        near.write_eof()
        with server.accept(PATIENCE) as other:
            assert other.id == waiting.id
        waiting.close()
        assert not client.closed


def _child_sees_the_end(ends: Ends, stream_id: int) -> None:
    for session in ends:
        assert session.closed
        assert session.close_reason is not None
        assert "parent" in session.close_reason.message
        for call in (session.open, session.accept, session.ping):
            with pytest.raises(muxado.SessionError, match="parent"):
                call()
        session.close()
        session.abort()
        session.wait_closed(PATIENCE)


@pytest.mark.parametrize("end", [sync.Session.close, sync.Session.abort])
@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
def test_an_end_is_heard_at_once_though_a_forked_child_lives(
    tls: Tls, secure: bool, end: Callable[[sync.Session], None]
) -> None:
    # Nothing else ends a session that its peer's end does not reach.
    config = Config(close_timeout=600.0, ping_interval=None)
    with (
        sync.listen("127.0.0.1", 0, ssl=tls.server if secure else None, config=config) as listener,
        sync.connect(
            *listener.addresses[0], ssl=tls.client if secure else None, config=config
        ) as client,
        listener.accept(PATIENCE) as server,
    ):
        client.ping(PATIENCE)
        with living_child():
            end(server)
            for session in (client, server):
                session.wait_closed(PATIENCE)


def test_a_forked_child_keeps_no_listener_open() -> None:
    listener = sync.listen("127.0.0.1", 0)
    address = listener.addresses[0]
    with living_child():
        listener.close()
        with pytest.raises(ConnectionRefusedError):
            sync.connect(*address)


def test_a_forked_child_keeps_no_handshake_open(tls: Tls) -> None:
    with (
        sync.listen("127.0.0.1", 0, ssl=tls.server) as listener,
        socket.create_connection(listener.addresses[0]) as silent,
        sync.connect(*listener.addresses[0], ssl=tls.client),  # so the silent one has come in
    ):
        silent.settimeout(PATIENCE)
        with living_child():
            silent.sendall(bytes(100))  # no hello: the handshake fails
            with contextlib.suppress(ConnectionResetError):
                while silent.recv(4096):
                    pass


def test_a_forked_child_keeps_no_dial_open(tls: Tls) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        with background(lambda: dial_in_vain(address, tls)) as dialling:
            accepted, _ = listening.accept()
            with accepted:
                accepted.settimeout(PATIENCE)
                assert accepted.recv(1)  # the beginning of a hello
                with living_child():
                    accepted.sendall(bytes(100))  # no answer to it: the handshake fails
                    with contextlib.suppress(ConnectionResetError):
                        while accepted.recv(4096):
                            pass
                dialling.result(PATIENCE)


def dial_in_vain(address: tuple[str, int], tls: Tls) -> None:
    with pytest.raises(ssl.SSLError):
        sync.connect(*address, ssl=tls.client)


def test_a_fork_leaves_a_write_that_waits_to_the_parent(ends: Ends) -> None:
    with opened(*ends) as (near, far):
        near.sendall(bytes(MIB))
        with background(near.sendall, b"x") as sending:
            until_written(near)
            assert _in_child(lambda: _child_writes_nothing(near)) == 0
            assert len(far.recv(MIB + 1, socket.MSG_WAITALL)) == MIB + 1
            sending.result(PATIENCE)


def _child_writes_nothing(stream: Stream) -> None:
    stream.settimeout(PATIENCE)
    with pytest.raises(muxado.SessionError, match="parent"):
        stream.send(b"x")


def test_a_fork_leaves_the_listener_to_the_parent(ends: Ends) -> None:
    client, server = ends
    listener = server.listener()
    with client.open(eager=True):
        client.ping(PATIENCE)
        assert _in_child(lambda: _child_accepts_nothing(listener)) == 0
        assert select.select([listener], [], [], 0)[0]
        listener.accept_nowait()[0].close()


def _child_accepts_nothing(listener: StreamListener) -> None:
    with pytest.raises(muxado.SessionError, match="parent"):
        listener.accept()


def test_a_listener_is_closed_in_a_child_alone() -> None:
    with sync.listen("127.0.0.1", 0) as listener:
        assert _in_child(lambda: _child_closes(listener)) == 0
        with sync.connect(*listener.addresses[0]), listener.accept(PATIENCE):
            pass


def _child_closes(listener: sync.Listener) -> None:
    sockets = listener.sockets
    listener.close()
    assert [sock.fileno() for sock in sockets] == [-1]


def test_forks_amid_traffic(ends: Ends) -> None:
    with opened(*ends) as (near, far):
        stop = threading.Event()
        received = 0

        def send() -> None:
            while not stop.is_set():
                near.sendall(bytes(10_000))
            near.write_eof()

        def receive() -> None:
            nonlocal received
            while data := far.recv(10_000):
                received += len(data)

        with background(send), background(receive) as receiving:
            for _ in range(10):
                assert _in_child(lambda: None) == 0
            stop.set()
            receiving.result(PATIENCE)
        assert received
        assert received % 10_000 == 0


def _in_child(work: object) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        pid = os.fork()
    if not pid:
        status = 1
        try:
            assert callable(work)
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
