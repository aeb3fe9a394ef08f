"""Engines of directories, each a process of its own that a test starts and stops."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats
import pytest
import redis.asyncio
from nats.aio.client import Client
from tests.patience import patience

from muxado.cluster import Directory
from muxado.cluster.nats import NatsDirectory
from muxado.cluster.redis import RedisDirectory

from .helpers import free_port


class Engine:
    """An engine's process. Start it with `start`.

    Args:
        folder: where its files are.
        options: what its command line has besides.

    Attributes:
        url: where it listens.
    """

    program = ""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        self.port = free_port()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        raise NotImplementedError

    def command(self) -> list[str]:
        raise NotImplementedError

    async def ready(self) -> None:
        """Raise if it does not answer yet."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.close()
        await writer.wait_closed()

    def directory(self, **options: Any) -> Directory:
        """Return a server's directory in it."""
        raise NotImplementedError

    async def start(self) -> None:
        """Start it, empty, and wait until it answers."""
        program = shutil.which(self.program, path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            message = f"{self.program} is not installed"
            assert not os.environ.get("MUXADO_REQUIRE_ENGINES"), message
            pytest.skip(message)
        log = (self.folder / "log").open("ab")
        self._process = await asyncio.create_subprocess_exec(
            program, *self.command(), *self.options, cwd=self.folder, stdout=log, stderr=log
        )
        log.close()
        async with asyncio.timeout(patience(10)):
            while True:
                try:
                    await self.ready()
                except OSError:
                    assert self._process.returncode is None, (self.folder / "log").read_text()
                    await asyncio.sleep(0.02)
                else:
                    return

    async def stop(self) -> None:
        """Kill it, as far as it runs; it forgets everything."""
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()
            self._process = None

    async def freeze(self) -> None:
        """Let it do nothing, with its connections open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        # A process of several threads does not stop at once.
        while running(self._process.pid):  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0.01)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


class Redis(Engine):
    program = "redis-server"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        where = ["--port", str(self.port), "--bind", "127.0.0.1"]
        return [*where, "--save", "", "--appendonly", "no", "--dir", str(self.folder)]

    def directory(self, **options: Any) -> Directory:
        return RedisDirectory(options.pop("url", self.url), **({"timeout": patience(2)} | options))

    async def tell(self, *words: str | int) -> Any:
        """Give it a command."""
        client = redis.asyncio.from_url(self.url)
        try:
            return await client.execute_command(*words)  # type: ignore[no-untyped-call]
        finally:
            await client.aclose()


class Nats(Engine):
    program = "nats-server"

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return ["-a", "127.0.0.1", "-p", str(self.port)]

    def directory(self, **options: Any) -> Directory:
        options.pop("lease", None)
        return NatsDirectory(options.pop("url", self.url), **({"timeout": patience(2)} | options))

    async def client(self) -> Client:
        return await nats.connect(self.url, allow_reconnect=False)


NewEngine = Callable[..., Engine]

ENGINES: list[NewEngine] = [Redis, Nats]


def running(pid: int) -> bool:
    """Return whether a thread of a process is not stopped."""
    stats = [task / "stat" for task in Path(f"/proc/{pid}/task").iterdir()]
    return any(stat.read_text().rpartition(")")[2].split()[0] != "T" for stat in stats)


def tls_options(engine: NewEngine, folder: Path) -> list[str]:
    """Return the options with which an engine speaks TLS only, with these certificates."""
    ca, cert, key = (str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem"))
    if engine is Nats:
        return ["--tls", "--tlscacert", ca, "--tlscert", cert, "--tlskey", key]
    return [
        *("--tls-ca-cert-file", ca, "--tls-cert-file", cert, "--tls-key-file", key),
        *("--tls-auth-clients", "no"),
    ]


def trusting(folder: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(folder / "ca.pem"))
