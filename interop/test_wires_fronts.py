"""yamux and smux against their Go originals from threads and under trio: a core set."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.patience import patience

import muxado.sync
import muxado.trio
from muxado import Config

from .gopeer import flags
from .helpers import MIB, data_of
from .meeting import HOST
from .test_wires import WIRES

SIZES = [0, 1, 262_145, MIB]
AT_ONCE = 200
# Go ends a session that does not live in less time than the test takes.
KEEPALIVE = {"keepalive": "200ms", "keepalive_timeout": "11s"}


class Peer:
    """A Go server that a test talks to without an event loop.

    Attributes:
        address: where it listens.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        host, port = self._wait("event", "listening")["addr"].split(":")
        self.address = host, int(port)

    def call(self, command: str, **fields: Any) -> dict[str, Any]:
        """Have Go do something, and return its reply."""
        assert self._process.stdin is not None
        order = {"id": 1, "cmd": command, "timeout": patience(20)} | fields
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        reply = self._wait("id", 1)
        assert reply["ok"], reply
        return reply

    def _wait(self, key: str, value: object) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said: dict[str, Any] = json.loads(line)
            if said.get(key) == value:
                return said
        raise EOFError("Go has ended")


@contextmanager
def serving(program: Path, library: str, **options: Any) -> Iterator[Peer]:
    """Run a Go server for one session, which must end well."""
    options |= {"library": library, "role": "server", "listen": f"{HOST}:0", "behaviour": "echo"}
    process = subprocess.Popen(
        [program, *flags(options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield Peer(process)
        process.communicate(timeout=patience(10))
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("library", WIRES)
def test_threads(wires_program: Path, library: str) -> None:
    def exchange(data: bytes) -> None:
        with session.open() as stream, ThreadPoolExecutor(1) as pool:

            def send() -> None:
                stream.sendall(data)
                stream.write_eof()

            sending = pool.submit(send)
            received = b""
            while chunk := stream.recv(65536):
                received += chunk
            sending.result()
            assert received == data

    def echo(stream: muxado.sync.Stream) -> None:
        while data := stream.recv(65536):
            stream.sendall(data)
        stream.write_eof()

    config = Config(wire=WIRES[library])
    with (
        serving(wires_program, library, **KEEPALIVE) as go,
        muxado.sync.connect(*go.address, config=config) as session,
        ThreadPoolExecutor(50) as pool,
    ):
        for size in SIZES:
            exchange(data_of(size))
        rng = random.Random(1)
        list(pool.map(exchange, [data_of(rng.randrange(5000), n) for n in range(AT_ONCE)]))
        served = pool.submit(session.serve, echo)
        assert go.call("many", count=AT_ONCE, max=50_000, seed=1)["good"] == AT_ONCE
        session.close()
        served.result()
        reason = session.wait_closed()
    assert reason.clean


@pytest.mark.parametrize("library", WIRES)
def test_trio(wires_program: Path, library: str) -> None:
    async def exchange(session: muxado.trio.Session, data: bytes) -> None:
        async with session.open() as stream, trio.open_nursery() as nursery:

            async def send() -> None:
                await stream.send_all(data)
                await stream.send_eof()

            nursery.start_soon(send)
            received = b""
            while chunk := await stream.receive_some(65536):
                received += chunk
            assert received == data

    async def echo(stream: muxado.trio.Stream) -> None:
        while data := await stream.receive_some(65536):
            await stream.send_all(data)
        await stream.send_eof()

    async def main(go: Peer) -> None:
        config = Config(wire=WIRES[library])
        async with muxado.trio.connect(*go.address, config=config) as session:
            for size in SIZES:
                await exchange(session, data_of(size))
            rng = random.Random(1)
            async with trio.open_nursery() as nursery:
                for number in range(AT_ONCE):
                    nursery.start_soon(exchange, session, data_of(rng.randrange(5000), number))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.serve, echo)
                many = await trio.to_thread.run_sync(
                    lambda: go.call("many", count=AT_ONCE, max=50_000, seed=1)
                )
                assert many["good"] == AT_ONCE
                session.close()
            assert (await session.wait_closed()).clean

    with serving(wires_program, library, **KEEPALIVE) as go:
        trio.run(main, go)
