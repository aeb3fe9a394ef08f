"""A fleet: agents behind NAT that serve HTTP, and a hub that calls them by their names.

The agents dial the hub, over TLS with a certificate each, and serve HTTP on the streams that the
hub opens. The hub knows an agent by its certificate. One agent is drained while it is called, as
for a deployment, and comes back on a new connection without a call lost; in the end the hub shuts
down, and waits for the requests that run. A status list says who is connected.
"""

import asyncio
import contextlib
import ssl

import aiohttp
import trustme
from aiohttp import web

import muxado
from muxado.adapters.aiohttp import Connector, create_server

HUB = "hub.example.org"
AGENTS = [f"agent-{number}.example.org" for number in range(1, 6)]
PINGS = muxado.Config(ping_interval=5.0)  # an agent that vanishes is noticed soon


# The hub


class Fleet:
    """The agents that are connected, by name."""

    def __init__(self) -> None:
        self._agents: dict[str, tuple[muxado.Session, aiohttp.ClientSession]] = {}
        self._changed = asyncio.Condition()

    async def serve(self, session: muxado.Session) -> None:
        """Know an agent by its certificate, and keep it for as long as it is connected."""
        certificate = session.get_extra_info("peercert")
        names = [value for kind, value in certificate["subjectAltName"] if kind == "DNS"]
        session.name = names[0]
        if session.name not in AGENTS:
            session.go_away(403, b"this hub does not know you")
            return
        async with aiohttp.ClientSession(connector=Connector(session)) as http:
            await self._set(session.name, (session, http))  # the newest connection counts
            try:
                await session.wait_closed()
            finally:
                if self._agents.get(session.name) == (session, http):
                    await self._set(session.name, None)

    async def _set(
        self, name: str, agent: tuple[muxado.Session, aiohttp.ClientSession] | None
    ) -> None:
        async with self._changed:
            if agent is None:
                del self._agents[name]
            else:
                self._agents[name] = agent
            self._changed.notify_all()

    async def call(self, name: str, path: str) -> str:
        """Call an agent over HTTP; if it is being replaced, wait for its new connection."""
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(
                lambda: name in self._agents and not self._agents[name][0].draining
            )
            _, http = self._agents[name]
        async with http.get(f"http://{name}{path}") as response:
            return await response.text()

    def drain(self, name: str) -> None:
        """Tell an agent to dial again; what runs over its connection runs to its end."""
        self._agents[name][0].go_away(0, b"a new version of the hub")

    def status(self) -> list[str]:
        """Say who is connected, and what they are doing."""
        lines = []
        for name, (session, _) in sorted(self._agents.items()):
            stats = session.stats()
            lines.append(
                f"{name:22} {'draining' if session.draining else 'connected':10}"
                f" streams {stats.streams}, {stats.bytes_received} bytes,"
                f" round trip {1000 * stats.rtt:.1f} ms"
            )
        return lines


# An agent


async def agent(name: str, port: int, tls: ssl.SSLContext) -> None:
    """Serve HTTP to the hub, over whichever connection there is."""

    async def hello(request: web.Request) -> web.Response:
        await asyncio.sleep(float(request.query.get("seconds", 0)))
        return web.Response(text=f"{name} has served {request.path}")

    app = web.Application()
    app.add_routes([web.get("/{path}", hello)])
    runner = web.AppRunner(app)
    await runner.setup()
    http = runner.server
    assert http is not None

    async def serve(session: muxado.Session) -> None:
        with contextlib.suppress(muxado.SessionError):  # it was cut: the next one comes
            await create_server(session, http).serve_forever()

    try:
        async with (
            muxado.Dialer(
                "127.0.0.1", port, ssl=tls, server_hostname=HUB, config=PINGS, name="hub"
            ) as dialer,
            asyncio.TaskGroup() as group,
        ):
            async for session in dialer:
                group.create_task(serve(session))  # the last one may still be draining
    finally:
        await runner.cleanup()


# Both


def contexts(authority: trustme.CA, name: str) -> ssl.SSLContext:
    """Return a TLS context with a certificate of a name, for the hub or for an agent."""
    purpose = ssl.Purpose.CLIENT_AUTH if name == HUB else ssl.Purpose.SERVER_AUTH
    context = ssl.create_default_context(purpose)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["muxado/2"])
    authority.configure_trust(context)
    authority.issue_cert(name).configure_cert(context)
    return context


async def main() -> None:
    authority = trustme.CA()
    fleet = Fleet()
    async with (
        asyncio.TaskGroup() as group,
        muxado.serve(
            fleet.serve, "127.0.0.1", 0, ssl=contexts(authority, HUB), config=PINGS
        ) as server,
    ):
        port = server.addresses[0][1]
        agents = [
            group.create_task(agent(name, port, contexts(authority, name))) for name in AGENTS
        ]
        answers = await asyncio.gather(*[fleet.call(name, "/hello") for name in AGENTS])
        print(*answers, sep="\n")
        print(*fleet.status(), sep="\n")

        # One is drained with a request running, and called on.
        running = asyncio.create_task(fleet.call(AGENTS[0], "/slow?seconds=0.3"))
        await asyncio.sleep(0.1)
        fleet.drain(AGENTS[0])
        again = await asyncio.gather(*[fleet.call(AGENTS[0], "/again") for _ in range(20)])
        assert set(again) == {f"{AGENTS[0]} has served /again"}
        print(await running, "- on the old connection, while the new one served 20 calls")

        # A stranger has a certificate of the same authority, and is turned away for good.
        stranger = contexts(authority, "stranger.example.org")
        code = 0
        try:
            async with muxado.Dialer(
                "127.0.0.1", port, ssl=stranger, server_hostname=HUB
            ) as dialer:
                async for _ in dialer:
                    pass
        except muxado.SessionError as exc:
            code = exc.code
            print("the stranger was told:", exc)
        assert code == 403

        # The hub ends when the last request is done.
        last = asyncio.create_task(fleet.call(AGENTS[1], "/last?seconds=0.3"))
        await asyncio.sleep(0.1)
        await server.shutdown(timeout=10)
        print(await last)
        assert not fleet.status()
        print("the hub is down; the agents would dial it for ever")
        for task in agents:
            task.cancel()


asyncio.run(main())
