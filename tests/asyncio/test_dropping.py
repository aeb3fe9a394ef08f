"""Sessions that are dropped, ended or left behind: what they hold, say and do then."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
import textwrap
import weakref
from asyncio.sslproto import SSLProtocol
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import muxado
from muxado import Config, Session, Stream

from ..certificates import Tls
from ..fixtures import PATIENCE, NewPair
from ..helpers import echo, exchange, opened, running
from ..transports import Connect, Ends, piped_pairs

pytestmark = pytest.mark.anyio


# Dropped sessions


async def test_a_session_that_was_dropped_warns_and_ends(new_pair: NewPair) -> None:
    client, server = await new_pair(ping_interval=None)
    await client.ping()
    peer = server
    # The fixture holds the session itself; this is another face of it, which only the test holds.
    dropped = Session(client._driver)
    with pytest.warns(ResourceWarning, match="unclosed session <Session client open"):
        del dropped
    await peer.wait_closed()
    assert peer.close_reason is not None
    assert peer.close_reason.by_peer


@pytest.mark.parametrize("client_first", [True, False])
async def test_a_session_without_a_holder_ends_without_a_collection(
    anyio_backend: object, client_first: bool
) -> None:
    async with muxado.listen("127.0.0.1", 0) as listener:
        ends = [await muxado.connect(*listener.addresses[0]), await listener.accept()]
        if not client_first:
            ends.reverse()
        with collector_off(), pytest.warns(ResourceWarning, match="unclosed session"):
            del ends[0]
        await ends[0].wait_closed()


async def test_a_session_that_has_ended_or_never_began_is_dropped_quietly(
    anyio_backend: object,
) -> None:
    async with muxado.listen("127.0.0.1", 0) as listener:
        address = listener.addresses[0]
        client, server = await muxado.connect(*address), await listener.accept()
        client.close()
        del client
        await server.wait_closed()
        del server
    with pytest.raises(OSError, match=r"Connect"):
        await muxado.connect(*address)


async def accept(session: Session) -> None:
    with contextlib.suppress(muxado.SessionClosed):
        await session.accept()


async def test_what_waits_for_a_session_holds_it(anyio_backend: object) -> None:
    async with muxado.listen("127.0.0.1", 0) as listener:
        client = await muxado.connect(*listener.addresses[0])
        # Nothing holds the tasks but the session that they wait for, and the other way round.
        serving = await listener.accept()
        asyncio.get_running_loop().create_task(serving.serve(echo))
        del serving
        accepting = await muxado.connect(*listener.addresses[0])
        peer = await listener.accept()
        asyncio.get_running_loop().create_task(accept(accepting))
        del accepting
        await client.ping()
        gc.collect()
        async with client.open() as stream:
            assert await exchange(stream, b"still here") == b"still here"
        await peer.ping()
        for session in (client, peer):
            session.close()
            await session.wait_closed()


async def test_a_stream_holds_its_session(anyio_backend: object) -> None:
    async with muxado.listen("127.0.0.1", 0) as listener:
        client = await muxado.connect(*listener.addresses[0])
        server = await listener.accept()
        stream = client.open()
        reader, writer = await client.open_connection()
        del client
        gc.collect()
        async with running(server.serve(echo)):
            assert await exchange(stream, b"x") == b"x"
            stream.close()
            writer.write(b"y")
            assert await reader.readexactly(1) == b"y"
            writer.close()
            await writer.wait_closed()
            stream.session.close()
            await server.wait_closed()


# Ended sessions


@contextmanager
def collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def test_an_ended_session_needs_no_collector(
    no_tasks_left: None, transport: Connect, tls: Tls, socket_path: str
) -> None:
    with collector_off():
        async with transport(Config(), tls, socket_path) as (client, server):
            async with opened(client, server) as (stream, other):
                await stream.write(bytes(300_000))
                await other.readexactly(300_000)
            reader, writer = await client.open_connection()
            writer.close()
            client.close()
            await client.wait_closed()
            await server.wait_closed()
            drivers = [weakref.ref(session._driver) for session in (client, server)]
        del client, server, stream, other, reader, writer
        for _ in range(3):  # the loop's own last calls
            await asyncio.sleep(0)
        assert [driver() for driver in drivers] == [None, None]


async def test_an_ended_session_that_is_held_holds_no_transport(new_pair: NewPair) -> None:
    gc.collect()
    before = protocols()
    with collector_off():
        client, server = await new_pair()
        address = client.remote_address
        cipher = client.get_extra_info("cipher")
        client.close()
        await client.wait_closed()
        await server.wait_closed()
        await asyncio.sleep(0)
        assert protocols() == before
        assert client.remote_address == address
        assert client.get_extra_info("cipher") == cipher
        assert client.get_extra_info("nothing", "default") == "default"


def protocols() -> int:
    """Count what asyncio's TLS runs over, with the buffers."""
    return sum(isinstance(each, SSLProtocol) for each in gc.get_objects())


async def test_what_ended_a_session_holds_no_frames(session_pair: Ends) -> None:
    client, server = session_pair
    server.abort(3)
    await client.wait_closed()
    await server.wait_closed()
    for session in session_pair:
        assert session.close_reason is not None
        if session.close_reason.exception is not None:
            assert session.close_reason.exception.__traceback__ is None


# A reader or a writer that fails


@pytest.mark.parametrize("exc", [OSError("x"), asyncio.CancelledError(), ValueError("x")])
@pytest.mark.parametrize("where", ["read", "drain"])
async def test_whatever_a_reader_or_a_writer_raises_ends_the_session(
    anyio_backend: object, where: str, exc: BaseException
) -> None:
    class Broken:
        def __init__(self, of: Any) -> None:
            self._of = of

        def __getattr__(self, name: str) -> Any:
            return self.fail if name == where else getattr(self._of, name)

        async def fail(self, *args: object) -> bytes:
            await asyncio.sleep(0)
            raise exc

    async with piped_pairs() as (near, _far):
        reader, writer = near
        config = Config(close_timeout=0.1)
        session = muxado.client(Broken(reader), Broken(writer), config=config)
        stream = session.open(eager=True)
        await session.wait_closed()
        assert session.close_reason is not None
        assert not session.close_reason.clean
        stream.close()


# Loops that are closed


PROGRAM = """
import asyncio, gc, logging, os, sys
import muxado
from muxado.testing import asyncio_pair
from tests.transports import piped_pairs

logging.basicConfig()
logging.getLogger("asyncio").disabled = True  # "Task was destroyed but it is pending!"

async def echo(stream):
    while data := await stream.read(100):
        await stream.write(data)

async def chat(session):
    async with session.open() as stream:
        await stream.write(b"x")
        assert await stream.read(10) == b"x"
        await stream.write(bytes(1_000_000))
        await stream.wait_closed()

async def blocks():
    async with muxado.listen("127.0.0.1", 0) as listener:
        async with muxado.serve(lambda s: s.serve(echo), "127.0.0.1", 0) as server:
            async with muxado.connect(*server.addresses[0]) as session:
                await asyncio.gather(server.serve_forever(), chat(session), session.accept())

async def in_between():
    async with asyncio_pair() as (client, server):
        await asyncio.gather(server.serve(echo, limit=3, cancel_on_reset=True), chat(client))

async def pipes():
    async with piped_pairs() as (near, far):
        async with muxado.client(*near) as client, muxado.server(*far) as server:
            await asyncio.gather(server.serve(echo), chat(client))

async def protocols():
    async def call_back(reader, writer):
        try:
            while data := await reader.read(100):
                writer.write(data)
        finally:
            writer.close()

    async with asyncio_pair() as (client, server):
        served = server.start_server(call_back)
        await client.create_connection(asyncio.Protocol)
        reader, writer = await client.open_connection()
        try:
            writer.write(bytes(1_000_000))
            await writer.drain()
            await client.shutdown()
        finally:
            writer.close()
            served.close()

async def main():
    task = asyncio.ensure_future({work}())
    await asyncio.sleep(0.1)
    assert not task.done(), task
    return task

{loop}
kept = loop.run_until_complete(main())
loop.close()
del kept
gc.collect()
print("done")
"""

NEW_LOOP = {
    "asyncio": "loop = asyncio.new_event_loop()",
    "uvloop": "import uvloop; loop = uvloop.new_event_loop()",
}


@pytest.mark.parametrize("work", ["blocks", "in_between", "pipes", "protocols"])
async def test_nothing_is_printed_when_a_loop_is_closed_before_its_sessions(
    anyio_backend: tuple[str, dict[str, bool]], work: str
) -> None:
    kind = "uvloop" if anyio_backend[1]["use_uvloop"] else "asyncio"
    program = PROGRAM.replace("{work}", work).replace("{loop}", NEW_LOOP[kind])
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        cwd=Path(__file__).parents[2],
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.decode()) == (0, b"done\n", "")


# Long times


@pytest.mark.parametrize("time", [30 * 86400.0, 1e9])
async def test_any_length_of_time_works(new_pair: NewPair, time: float) -> None:
    settings = dict.fromkeys(("ping_interval", "ping_timeout", "close_timeout"), time)
    client, server = await new_pair(**settings)
    async with running(server.serve(echo)):
        async with client.open() as stream:
            assert await exchange(stream, b"x") == b"x"
        await client.shutdown(timeout=time)
    await server.wait_closed()


# Handlers of streams that the peer resets


@pytest.mark.parametrize("limit", [None, 1])
async def test_a_handler_is_cancelled_when_its_stream_is_reset_if_asked_for(
    session_pair: Ends, limit: int | None
) -> None:
    client, server = session_pair
    ended: asyncio.Queue[str] = asyncio.Queue()
    begun = asyncio.Event()

    async def handle(stream: Stream) -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.put_nowait("cancelled")
            raise

    async with running(server.serve(handle, limit=limit, cancel_on_reset=True)) as serving:
        for _ in range(2):
            begun.clear()
            stream = client.open(eager=True)
            await begun.wait()
            stream.write_eof()
            await client.ping()
            assert ended.empty()  # an end is no reset
            stream.reset()
            assert await ended.get() == "cancelled"
        assert not serving.done()
        assert server.stats().streams == 0


async def test_a_handler_goes_on_after_a_reset_by_default(session_pair: Ends) -> None:
    client, server = session_pair
    went_on = asyncio.Event()

    async def handle(stream: Stream) -> None:
        await stream.wait_reset()
        await asyncio.sleep(0)
        went_on.set()

    async with running(server.serve(handle)):
        client.open(eager=True).reset(7)
        stream = client.open(eager=True)
        await client.ping()
        stream.reset()
        await went_on.wait()
