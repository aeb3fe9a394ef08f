"""A fleet past one machine: agents behind NAT, three servers, and Redis that knows who is where.

The agents are each connected to one of three server processes, over TLS and with a key, and serve
HTTP there. Whichever server is asked, it calls any agent by its name with httpx. One server is
drained while all of them call: its agents move, and no call is lost.

It needs the program redis-server, and says so where there is none.
"""

import asyncio
import contextlib
import hashlib
import hmac
import random
import shutil
import signal
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import trustme
from aiohttp import web

import muxado
from muxado.adapters.aiohttp import create_server
from muxado.cluster import Denied, Member, Message, Node, PeerTLS
from muxado.cluster.httpx import Transport
from muxado.cluster.redis import RedisDirectory

AGENTS = [f"agent-{number}" for number in range(200)]
SECRET = b"what the keys of this fleet are made of"
PINGS = muxado.Config(ping_interval=5.0, ping_timeout=10.0)  # who vanishes is noticed soon


def key_of(name: str) -> str:
    """Return the key of an agent, which is given to it when it is set up."""
    return hmac.new(SECRET, name.encode(), hashlib.sha256).hexdigest()


# A server: `fleet_of_servers.py FOLDER`, a process of its own


async def authenticate(session: muxado.Session, hello: Message) -> str:
    """Know an agent by its key, which is for its name alone."""
    name = hello.text("name")
    if not hmac.compare_digest(hello.text("key"), key_of(name)):
        raise Denied("this fleet does not know you", 401)
    return name


async def serve(folder: Path) -> None:
    """Serve agents, and call any of them as standard input says, until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    for_agents = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    for_agents.load_cert_chain(folder / "server.pem", folder / "server.key")
    for_agents.set_alpn_protocols(["muxado/2"])
    async with (
        Node(
            directory=RedisDirectory(f"unix://{folder}/redis"),
            peers=PeerTLS(folder / "peer.pem", folder / "peer.key", folder / "peers.pem"),
        ) as node,
        muxado.serve(
            lambda session: node.serve(session, authenticate),
            "127.0.0.1",
            0,
            ssl=for_agents,
            config=PINGS,
        ) as server,
        httpx.AsyncClient(transport=Transport(node)) as http,
    ):
        print(server.addresses[0][1], flush=True)
        asking = asyncio.create_task(follow_orders(node, http))
        await stop.wait()
        server.stop_listening()
        await node.drain()
        asking.cancel()


async def follow_orders(node: Node, http: httpx.AsyncClient) -> None:
    """Answer each line of standard input: an agent's name by a call, "?" by the status."""
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async for line in lines:
        name = line.decode().strip()
        if name == "?":
            stats = node.stats()
            print(f"{stats.registered} agents here, {stats.peers} other servers", flush=True)
            continue
        try:
            response = await http.get(f"http://{name}/hello")
        except httpx.HTTPError as exc:
            print(f"{name} failed: {exc!r}", flush=True)
        else:
            print(response.text, flush=True)


# An agent


async def agent(name: str, ports: list[int], tls: ssl.SSLContext, connected: asyncio.Event) -> None:
    """Serve HTTP to the fleet, over whichever session there is."""

    async def hello(request: web.Request) -> web.Response:
        return web.Response(text=f"{name} has served {request.path}")

    app = web.Application()
    app.add_routes([web.get("/{path}", hello)])
    runner = web.AppRunner(app)
    await runner.setup()
    http = runner.server
    assert http is not None

    async def serve_http(session: muxado.Session) -> None:
        with contextlib.suppress(muxado.SessionError):  # it was cut: the next one comes
            await create_server(session, http).serve_forever()

    places = [("localhost", port) for port in ports]
    member = Member(name, places, None, key=key_of(name), ssl=tls, config=PINGS)
    async with member, asyncio.TaskGroup() as group:
        async for session in member.dialer:
            group.create_task(serve_http(session))  # the last one may still be draining
            connected.set()


# All of it


class Server:
    """A server's process, as this program sees it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()

    async def line(self) -> str:
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()

    async def ask(self, question: str) -> str:
        assert self._process.stdin is not None
        async with self._turn:
            self._process.stdin.write(f"{question}\n".encode())
            return await self.line()

    async def drain(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        return await self._process.wait()


@contextlib.asynccontextmanager
async def running(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program until the block is left."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def make_certificates(folder: Path) -> ssl.SSLContext:
    """Write what servers need, and return the TLS context for agents; peers have their own CA."""
    clients, peers = trustme.CA(), trustme.CA()
    peers.cert_pem.write_to_path(folder / "peers.pem")
    for authority, kind in ((clients, "server"), (peers, "peer")):
        certificate = authority.issue_cert("localhost")
        certificate.private_key_pem.write_to_path(folder / f"{kind}.key")
        certificate.cert_chain_pems[0].write_to_path(folder / f"{kind}.pem")
    context = ssl.create_default_context()
    context.set_alpn_protocols(["muxado/2"])
    clients.configure_trust(context)
    return context


async def main(redis: str, folder: Path) -> None:
    tls = make_certificates(folder)
    socket = f"{folder}/redis"
    async with contextlib.AsyncExitStack() as stack:
        engine = running(redis, "--port", "0", "--unixsocket", socket, "--save", "")
        await stack.enter_async_context(engine)
        servers = []
        for _ in range(3):
            process = running(sys.executable, __file__, str(folder))
            servers.append(Server(await stack.enter_async_context(process)))
        ports = [int(await server.line()) for server in servers]

        group = await stack.enter_async_context(asyncio.TaskGroup())
        agents = []
        for name in AGENTS:
            connected = asyncio.Event()
            places = random.sample(ports, len(ports))  # each has an order of its own
            agents.append(group.create_task(agent(name, places, tls, connected)))
            await connected.wait()

        # Each server calls every agent, whichever server that is connected to.
        for number, name in enumerate(AGENTS):
            assert await servers[number % 3].ask(name) == f"{name} has served /hello"
        print(f"{len(AGENTS)} agents have answered")
        for server in servers:
            print(await server.ask("?"))

        # One server is drained while the others go on calling.
        draining = asyncio.create_task(servers[0].drain())
        calls = 0
        while not draining.done() or calls < len(AGENTS):
            name = AGENTS[calls % len(AGENTS)]
            assert await servers[1 + calls % 2].ask(name) == f"{name} has served /hello"
            calls += 1
        assert await draining == 0
        print("one server has ended; the others have lost no call, and have its agents:")
        for server in servers[1:]:
            print(await server.ask("?"))
        for task in agents:
            task.cancel()


if __name__ == "__main__":
    program = shutil.which("redis-server")
    if len(sys.argv) > 1:
        asyncio.run(serve(Path(sys.argv[1])))
    elif program is None:
        print("this example needs redis-server, which is a package of most systems")
    else:
        with tempfile.TemporaryDirectory(prefix="mux") as where:
            asyncio.run(main(program, Path(where)))
