"""A session that drains waits for no connection that is only kept for a next request.

Each library is tried against a peer that closes nothing itself.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import aiohttp.web
import httpx
import hypercorn.config
import pytest
import requests
import uvicorn
import websockets.asyncio.client
import websockets.client
import websockets.uri

import muxado
import muxado.adapters.aiohttp
import muxado.adapters.httpx
import muxado.adapters.hypercorn
import muxado.adapters.requests
import muxado.adapters.urllib3
import muxado.adapters.uvicorn
import muxado.sync
from muxado import Session, Stream

from .conftest import PATIENCE, Ends, SyncEnds, Tls

pytestmark = pytest.mark.anyio

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
SIDES = ("calling", "serving")


async def draining(session: Session) -> None:
    """Wait until a session drains."""
    told = asyncio.Event()
    session.on_draining(told.set)
    await told.wait()


# Clients, with a server that never hangs up


class Service:
    """Answers on each stream for as long as the client keeps it."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.ending = asyncio.Event()

    async def __call__(self, stream: Stream) -> None:
        while request := await stream.readuntil(b"\r\n\r\n"):
            if request.startswith(b"GET /wait"):
                await stream.write(ANSWER)
                self.asked.set()
                await self.ending.wait()
                await stream.write(b"whole")
            else:
                await stream.write(ANSWER + b"whole")


Get = Callable[[str], Awaitable[bytes]]


@asynccontextmanager
async def by_httpx(session: Session, tls: Tls | None) -> AsyncIterator[Get]:
    verify = tls.client if tls else True
    transport = muxado.adapters.httpx.AsyncTransport(session, verify=verify)
    async with httpx.AsyncClient(transport=transport, timeout=PATIENCE) as http:

        async def get(path: str) -> bytes:
            scheme = "https" if tls else "http"
            return (await http.get(f"{scheme}://service.internal{path}")).content

        yield get


@asynccontextmanager
async def by_aiohttp(session: Session, tls: Tls | None) -> AsyncIterator[Get]:
    connector = muxado.adapters.aiohttp.Connector(session, ssl=tls.client if tls else True)
    async with aiohttp.ClientSession(connector=connector) as http:

        async def get(path: str) -> bytes:
            scheme = "https" if tls else "http"
            async with http.get(f"{scheme}://service.internal{path}") as response:
                return await response.read()

        yield get


CLIENTS: pytest.MarkDecorator = pytest.mark.parametrize("client", [by_httpx, by_aiohttp])


@CLIENTS
@pytest.mark.parametrize("side", SIDES)
async def test_clients_close_what_is_idle(ends: Ends, client: Any, side: str) -> None:
    serving = asyncio.ensure_future(ends.serving.serve(Service()))
    async with client(ends.calling, None) as get:
        assert await asyncio.gather(*[get("/") for _ in range(3)]) == [b"whole"] * 3
        session: Session = getattr(ends, side)
        await session.shutdown(timeout=None)
        assert session.close_reason is not None
        assert session.close_reason.clean
    await serving


@CLIENTS
@pytest.mark.parametrize("side", SIDES)
async def test_clients_close_what_was_running_when_it_is_done(
    ends: Ends, client: Any, side: str
) -> None:
    service = Service()
    serving = asyncio.ensure_future(ends.serving.serve(service))
    async with client(ends.calling, None) as get:
        assert await get("/") == b"whole"
        running = asyncio.ensure_future(get("/wait"))
        await service.asked.wait()
        shutdown = asyncio.ensure_future(getattr(ends, side).shutdown(timeout=None))
        await draining(ends.calling)
        service.ending.set()
        assert await running == b"whole"
        await shutdown
    await serving


@CLIENTS
@pytest.mark.parametrize("side", SIDES)
async def test_clients_close_what_is_idle_with_tls_inside(
    ends: Ends, client: Any, side: str, tls: Tls
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ANSWER + b"whole")
        writer.close()

    ends.serving.start_server(serve, ssl=tls.server)
    async with client(ends.calling, tls) as get:
        assert await get("/") == b"whole"
        await getattr(ends, side).shutdown(timeout=None)


def by_requests(session: muxado.sync.Session) -> Callable[[str], bytes]:
    http = requests.Session()
    http.mount("http://", muxado.adapters.requests.Adapter(session))
    return lambda path: http.get(f"http://service{path}", timeout=PATIENCE).content


def by_urllib3(session: muxado.sync.Session) -> Callable[[str], bytes]:
    http = muxado.adapters.urllib3.PoolManager(session, retries=False)
    return lambda path: http.request("GET", f"http://service{path}", timeout=PATIENCE).data


def by_httpx_from_threads(session: muxado.sync.Session) -> Callable[[str], bytes]:
    transport = muxado.adapters.httpx.Transport(session)
    http = httpx.Client(transport=transport, timeout=PATIENCE)
    return lambda path: http.get(f"http://service{path}").content


SYNC_CLIENTS: pytest.MarkDecorator = pytest.mark.parametrize(
    "client", [by_requests, by_urllib3, by_httpx_from_threads]
)


class SyncService:
    """The same for threads."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.ending = threading.Event()

    def __call__(self, stream: muxado.sync.Stream) -> None:
        with stream.makefile("rb") as reader:
            while request := reader.readline():
                while reader.readline() != b"\r\n":
                    pass
                if request.startswith(b"GET /wait"):
                    stream.sendall(ANSWER)
                    self.asked.set()
                    self.ending.wait(PATIENCE)
                    stream.sendall(b"whole")
                else:
                    stream.sendall(ANSWER + b"whole")


@SYNC_CLIENTS
@pytest.mark.parametrize("side", SIDES)
def test_clients_of_threads_close_what_is_idle(sync_ends: SyncEnds, client: Any, side: str) -> None:
    get = client(sync_ends.calling)
    with ThreadPoolExecutor() as executor:
        serving = executor.submit(sync_ends.serving.serve, SyncService())
        assert list(executor.map(get, ["/"] * 3)) == [b"whole"] * 3
        session: muxado.sync.Session = getattr(sync_ends, side)
        executor.submit(session.shutdown, None).result(PATIENCE)
        assert session.close_reason is not None
        assert session.close_reason.clean
        serving.result(PATIENCE)


@SYNC_CLIENTS
@pytest.mark.parametrize("side", SIDES)
def test_clients_of_threads_close_what_was_running_when_it_is_done(
    sync_ends: SyncEnds, client: Any, side: str
) -> None:
    get = client(sync_ends.calling)
    service = SyncService()
    told = threading.Event()
    sync_ends.calling.on_draining(told.set)
    with ThreadPoolExecutor() as executor:
        serving = executor.submit(sync_ends.serving.serve, service)
        assert get("/") == b"whole"
        running = executor.submit(get, "/wait")
        assert service.asked.wait(PATIENCE)
        shutdown = executor.submit(getattr(sync_ends, side).shutdown, None)
        assert told.wait(PATIENCE)
        service.ending.set()
        assert running.result(PATIENCE) == b"whole"
        shutdown.result(PATIENCE)
        serving.result(PATIENCE)


# Servers, with a client that never hangs up


class Application:
    """Answers at once, or when it is told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.ending = asyncio.Event()

    async def body(self, path: str) -> bytes:
        if path == "/wait":
            self.asked.set()
            await self.ending.wait()
        return b"whole"

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for event in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{event}.complete"})
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await self.body("/wait")
            await send({"type": "websocket.send", "text": "whole"})
            await send({"type": "websocket.close"})
            return
        body = await self.body(scope["path"])
        headers = [(b"content-length", b"5")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def aiohttp(self, request: aiohttp.web.BaseRequest) -> aiohttp.web.Response:
        return aiohttp.web.Response(body=await self.body(request.path))


@asynccontextmanager
async def with_uvicorn(app: Application, session: Session) -> AsyncIterator[None]:
    config = uvicorn.Config(app.asgi, interface="asgi3", log_config=None, http="h11", ws="wsproto")
    server = muxado.adapters.uvicorn.Server(config)
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve())
        group.create_task(server.serve_session(session))
        yield
        server.should_exit = True


@asynccontextmanager
async def with_hypercorn(app: Application, session: Session) -> AsyncIterator[None]:
    config = hypercorn.config.Config()
    config.errorlog = None
    async with muxado.adapters.hypercorn.Server(app.asgi, config) as server:
        serving = asyncio.ensure_future(server.serve_session(session))
        yield
        await serving


@asynccontextmanager
async def with_aiohttp(app: Application, session: Session) -> AsyncIterator[None]:
    server = aiohttp.web.Server(app.aiohttp)
    serving = muxado.adapters.aiohttp.create_server(session, server)
    yield
    await serving.serve_forever()
    await server.shutdown()


SERVERS: pytest.MarkDecorator = pytest.mark.parametrize(
    "server", [with_uvicorn, with_hypercorn, with_aiohttp]
)


async def ask(stream: Stream, path: str) -> None:
    await stream.write(b"GET %s HTTP/1.1\r\nHost: service\r\n\r\n" % path.encode())


async def answer(stream: Stream) -> bytes:
    assert (await stream.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    return await stream.readexactly(5)


@SERVERS
@pytest.mark.parametrize("side", SIDES)
async def test_servers_close_what_is_idle(ends: Ends, server: Any, side: str) -> None:
    session: Session = getattr(ends, side)
    async with server(Application(), ends.serving):
        streams = [ends.calling.open() for _ in range(3)]
        for stream in streams:
            await ask(stream, "/")
            assert await answer(stream) == b"whole"
        shutdown = asyncio.ensure_future(session.shutdown(timeout=None))
        for stream in streams:
            assert await stream.read() == b""
            stream.close()
        await shutdown
        assert session.close_reason is not None
        assert session.close_reason.clean


@SERVERS
@pytest.mark.parametrize("side", SIDES)
async def test_servers_close_what_was_running_when_it_is_done(
    ends: Ends, server: Any, side: str
) -> None:
    app = Application()
    async with server(app, ends.serving), ends.calling.open() as stream:
        await ask(stream, "/wait")
        await app.asked.wait()
        shutdown = asyncio.ensure_future(getattr(ends, side).shutdown(timeout=None))
        await draining(ends.serving)
        app.ending.set()
        assert await answer(stream) == b"whole"
        assert await stream.read() == b""
        stream.close()
        await shutdown


@SERVERS
async def test_servers_answer_a_first_request_that_comes_later(ends: Ends, server: Any) -> None:
    app = Application()
    async with server(app, ends.serving), ends.calling.open() as stream:
        await ask(stream, "/")
        assert await answer(stream) == b"whole"
        ends.calling.go_away()  # it may still open streams itself
        await draining(ends.serving)
        async with ends.calling.open() as late:
            await ask(late, "/")
            assert await answer(late) == b"whole"
            assert await late.read() == b""
        ends.calling.close()


@pytest.mark.parametrize("server", [with_uvicorn, with_hypercorn])
async def test_servers_let_websockets_go_on(ends: Ends, server: Any) -> None:
    app = Application()
    async with server(app, ends.serving):
        protocol = websockets.client.ClientProtocol(websockets.uri.parse_uri("ws://service/"))
        connection: Any = websockets.asyncio.client.ClientConnection
        _, socket = await ends.calling.create_connection(lambda: connection(protocol))
        await socket.handshake()
        await app.asked.wait()
        shutdown = asyncio.ensure_future(ends.serving.shutdown(timeout=None))
        await draining(ends.calling)
        app.ending.set()
        assert await socket.recv() == "whole"
        await socket.wait_closed()
        await shutdown


# A fleet

AGENTS = 200


@pytest.mark.parametrize("running", [0, 20], ids=["idle", "requests-running"])
async def test_a_fleet_is_shut_down_as_soon_as_its_longest_request_is_done(running: int) -> None:
    """Each agent serves HTTP over the connection that it dialled; the hub shuts down."""
    clients: dict[Session, aiohttp.ClientSession] = {}
    connected = asyncio.Event()
    asked = asyncio.Semaphore(0)
    ended = asyncio.Semaphore(0)
    going_on = asyncio.Event()
    ends: list[muxado.CloseReason] = []

    async def answer(request: aiohttp.web.Request) -> aiohttp.web.Response:
        if request.path == "/wait":
            asked.release()
            await going_on.wait()
        return aiohttp.web.Response(text="whole")

    async def agent(address: tuple[str, int]) -> None:
        app = aiohttp.web.Application()
        app.add_routes([aiohttp.web.get("/{path}", answer)])
        runner = aiohttp.web.AppRunner(app)
        await runner.setup()
        assert runner.server is not None
        async with muxado.connect(*address) as session:
            server = muxado.adapters.aiohttp.create_server(session, runner.server)
            await server.serve_forever()
            ends.append(await session.wait_closed())
            ended.release()
        await runner.cleanup()

    async def get(session: Session, path: str) -> str:
        async with clients[session].get(f"http://agent/{path}") as response:
            return await response.text()

    async def hub(session: Session) -> None:
        connector = muxado.adapters.aiohttp.Connector(session)
        async with aiohttp.ClientSession(connector=connector) as clients[session]:
            await get(session, "now")  # its connection is kept, and idle
            if len(clients) == AGENTS:
                connected.set()
            await session.wait_closed()

    async with muxado.serve(hub, "127.0.0.1", 0) as server, asyncio.TaskGroup() as group:
        for _ in range(AGENTS):
            group.create_task(agent(server.addresses[0]))
        await connected.wait()
        sessions = list(clients)[:running]
        requests = [group.create_task(get(session, "wait")) for session in sessions]
        for _ in range(running):
            await asked.acquire()
        # Longer than the test may take: a shutdown that waits for idle connections fails.
        shutdown = group.create_task(server.shutdown(timeout=10 * PATIENCE))
        for _ in range(AGENTS - running):
            await ended.acquire()
        assert not shutdown.done() or not running
        going_on.set()
        await shutdown
        assert [await request for request in requests] == ["whole"] * running
    assert len(ends) == AGENTS
    assert all(reason.clean for reason in ends)
