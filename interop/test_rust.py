"""Implementations in Rust: the crates `muxado`, a v2 of other origin than Go's, and `yamux`."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.patience import patience

import muxado
from muxado import Config, Session

from .gopeer import BUILD_TIMEOUT, GoPeer
from .helpers import MIB, data_of, echo, exchange, running
from .meeting import HOST, Tls, end

# The first test waits for the build.
pytestmark = [pytest.mark.anyio, pytest.mark.timeout(BUILD_TIMEOUT + patience(60))]

SOURCE = Path(__file__).parent / "rust"
WIRES = {"muxado": "muxado-v2", "yamux": "yamux"}
Meet = Callable[[], Awaitable[tuple[Session, GoPeer]]]


@pytest.fixture(scope="module")
def program() -> Path:
    """The built peer; in its folder, as it takes a minute where nothing is built yet."""
    required = os.environ.get("MUXADO_REQUIRE_RUST") == "1"
    if shutil.which("cargo") is None:
        if required:
            pytest.fail("cargo is missing", pytrace=False)
        pytest.skip("cargo is missing")
    fetched = subprocess.run(
        ["cargo", "fetch", "--locked", "--quiet"], cwd=SOURCE, check=False, timeout=BUILD_TIMEOUT
    )
    if fetched.returncode and not required:
        pytest.skip("the crates can't be had here")
    built = subprocess.run(
        ["cargo", "build", "--locked", "--quiet"],
        cwd=SOURCE,
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_TIMEOUT,
    )
    assert built.returncode == 0, built.stderr
    return Path(os.environ.get("CARGO_TARGET_DIR", SOURCE / "target")) / "debug" / "peer"


@pytest.fixture(params=WIRES)
def library(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


WAYS = [(role, scheme) for scheme in ("tcp", "tls") for role in ("client", "server")]


@pytest.fixture(params=WAYS, ids=lambda way: f"we-{way[0]}-{way[1]}")
async def meet(
    request: pytest.FixtureRequest,
    library: str,
    program: Path,
    tls: Tls,
    tmp_path: Path,
    no_tasks_left: None,
) -> AsyncIterator[Meet]:
    """Starts a Rust peer and connects a session to it; the client dials."""
    role, scheme = request.param
    near, far = (tls.client, tls.server) if scheme == "tls" else (None, None)
    files = {name: tls.go_flags[name] for name in ("ca", "cert", "key")} if near else {}
    async with AsyncExitStack() as stack:

        async def start(**flags: str) -> GoPeer:
            flags |= {"library": library} | files
            peer = await GoPeer.start(program, tmp_path / "stderr", **flags)
            stack.push_async_callback(peer.finish)
            return peer

        async def connect() -> tuple[Session, GoPeer]:
            config = Config(wire=WIRES[library], close_timeout=1.0)
            if role == "client":
                rust = await start(role="server", listen=f"{HOST}:0")
                host, port = (await rust.event("listening"))["addr"].split(":")
                session = await muxado.connect(host, int(port), ssl=near, config=config)
            else:
                async with muxado.listen(HOST, 0, ssl=far, config=config) as listener:
                    rust = await start(role="client", dial="{}:{}".format(*listener.addresses[0]))
                    session = await listener.accept()
            stack.push_async_callback(end, session)
            await rust.event("session")
            return session, rust

        yield connect


@pytest.mark.parametrize("size", [0, 1, 262_143, 262_145, 4 * MIB])
async def test_rust_echoes(meet: Meet, size: int) -> None:
    session, rust = await meet()
    await exchange(session, data_of(size))
    assert session.stats().streams == 0
    assert (await rust.event("stream-done"))["read"] == size


# A stream on which nothing is written is never announced by either crate.
@pytest.mark.parametrize("size", [1, 262_143, 262_145, 4 * MIB])
async def test_we_echo(meet: Meet, size: int) -> None:
    session, rust = await meet()
    async with running(session.serve(echo)):
        assert (await rust.call("check", n=size, seed=size))["received"] == size


@pytest.mark.patience(60)
async def test_many_streams_at_once_both_ways(meet: Meet) -> None:
    session, rust = await meet()
    sizes = [0, 1, 1000, 70_000] * 50
    async with running(session.serve(echo)):
        theirs = rust.call("many", count=200, max=200_000, seed=3)
        await asyncio.gather(*[exchange(session, data_of(size)) for size in sizes])
        assert (await theirs)["good"] == 200
    assert rust.seen("stream-failed") == 0


async def test_a_close_of_ours_is_the_end_there(meet: Meet) -> None:
    session, rust = await meet()
    await exchange(session, b"hello")
    session.close()
    assert (await session.wait_closed()).clean
    await rust.event("session-end")


async def test_a_close_of_rusts_is_clean_where_nothing_is_open(meet: Meet, library: str) -> None:
    if library == "muxado":
        pytest.skip("the crate's close() sends nothing while the session is idle")
    session, rust = await meet()
    await exchange(session, b"hello")
    await rust.call("close-session")
    reason = await session.wait_closed()
    assert (reason.clean, reason.by_peer) == (True, True)
