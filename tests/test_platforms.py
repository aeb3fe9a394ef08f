"""What the library does where a system lacks what Linux has: Unix sockets, fork, epoll, signals.

Each program runs in a process whose standard library has been robbed of these before anything
imports it, as it is on Windows; so what the standard library does without them is real too.
"""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

import pytest

WITHOUT = """
    import _socket, os, select, sys
    del _socket.AF_UNIX, _socket.socketpair
    del os.fork, os.register_at_fork, os.readv
    if sys.argv[1:] != ["epoll"]:
        for name in ("epoll", "poll"):
            delattr(select, name)
    import asyncio, socket

    def refuse(*args):
        raise NotImplementedError

    asyncio.SelectorEventLoop.add_signal_handler = refuse
    assert not hasattr(socket, "AF_UNIX")
"""

ON_ASYNCIO = """
    import muxado

    async def echo(stream):
        await stream.write(await stream.read(100))

    async def main():
        async with muxado.serve(lambda session: session.serve(echo), "127.0.0.1", 0) as server:
            async with muxado.connect(*server.addresses[0][:2]) as session:
                async with session.open() as stream:
                    await stream.write(b"hello")
                    assert await stream.read(100) == b"hello"
        for step in (muxado.connect, muxado.listen):
            try:
                await step(path="somewhere")
            except muxado.UsageError as exc:
                print("refused", exc)

    asyncio.run(main())
"""

IN_THREADS = """
    import http.client, http.server
    import muxado.sync
    from muxado.adapters.http_client import HTTPConnection
    from muxado.adapters.socketserver import HTTPServer

    def serve(session):
        HTTPServer(session, http.server.SimpleHTTPRequestHandler).serve_forever()

    http.server.SimpleHTTPRequestHandler.log_message = lambda *args: None
    with muxado.sync.serve(serve, "127.0.0.1", 0) as server:
        with muxado.sync.connect(*server.addresses[0][:2]) as session:
            connection = HTTPConnection(session, "any.name")
            connection.request("HEAD", "/")
            assert connection.getresponse().status == 200
            connection.close()
            with session.open().to_socket() as sock:
                sock.sendall(b"HEAD / HTTP/1.0\\r\\n\\r\\n")
                assert sock.recv(100).startswith(b"HTTP/1.0 200")
    for step in (muxado.sync.connect, muxado.sync.listen):
        try:
            step(path="somewhere")
        except muxado.UsageError as exc:
            print("refused", exc)
"""

ON_TRIO = """
    import trio
    import muxado.trio

    async def echo(stream):
        await stream.send_all(await stream.receive_some(100))

    async def main():
        async with trio.open_nursery() as nursery:
            server = await nursery.start(
                muxado.trio.serve, lambda session: session.serve(echo), "127.0.0.1", 0
            )
            async with muxado.trio.connect(*server.addresses[0][:2]) as session:
                async with session.open() as stream:
                    await stream.send_all(b"hello")
                    assert await stream.receive_some(100) == b"hello"
            nursery.cancel_scope.cancel()
        for step in (muxado.trio.connect, muxado.trio.listen):
            try:
                async with step(path="somewhere"):
                    pass
            except muxado.UsageError as exc:
                print("refused", exc)

    trio.run(main)
"""

WEBSOCKETS_ON_TRIO = """
    import trio
    from muxado import UsageError
    from muxado.carriers.websockets.trio import connect, serve

    async def main():
        try:
            connect("ws://127.0.0.1:1/")
        except UsageError as exc:
            print("refused", exc)
        try:
            await serve(print, "127.0.0.1", 0)
        except UsageError as exc:
            print("refused", exc)

    trio.run(main)
"""

ADAPTERS = """
    from importlib import import_module
    from pathlib import Path
    import muxado.adapters, muxado.cli, muxado.testing

    for path in Path(muxado.adapters.__path__[0]).glob("[a-z]*.py"):
        try:
            import_module(f"muxado.adapters.{path.stem}")
        except ImportError as exc:
            print("without its library:", exc, file=sys.stderr)
"""


def run(program: str, *arguments: str) -> str:
    """Run a program in such a process and return what it prints; it must print no error."""
    done = subprocess.run(
        [sys.executable, "-c", dedent(WITHOUT) + dedent(program), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_asyncio_works_without_them() -> None:
    assert run(ON_ASYNCIO).count("refused") == 2


def test_threads_work_without_them() -> None:
    assert run(IN_THREADS).count("refused") == 2


def test_trio_works_without_them() -> None:
    pytest.importorskip("trio")
    assert run(ON_TRIO, "epoll").count("refused") == 2  # trio itself needs epoll on Linux


def test_websockets_on_trio_say_what_is_missing() -> None:
    pytest.importorskip("trio")
    pytest.importorskip("websockets")
    assert run(WEBSOCKETS_ON_TRIO, "epoll").count("refused under trio, WebSockets need") == 2


def test_all_adapters_can_be_imported_without_them() -> None:
    run(ADAPTERS, "epoll")
