"""The client of the tunnel: offers services, and listens for what is to be reached.

A server names services, never targets: the client dials only what it was told for a service here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable
from itertools import cycle
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..asyncio import Dialer, Session, Stream, connect, relay
from ..cluster.control import Control, join
from ..cluster.errors import Denied, HeaderError
from ..cluster.lines import Header, Message
from ..cluster.member import read_header
from ..cluster.names import check_name
from ..config import Config
from ..errors import ErrorCode, MuxadoError, UsageError
from ..redial import Backoff, DialerState
from .invitations import Invitation, format_place, parse_place
from .messages import Offer, parse_sources
from .pins import client_context
from .server import CONFIG, UNREACHABLE
from .state import ClientState, Known
from .targets import TIMEOUT, Target

if TYPE_CHECKING:
    from typing import Self

__all__ = ["BACKOFF", "Client", "Exposed", "Forward"]

logger: logging.Logger = logging.getLogger("muxado.tunnel")

BACKOFF = Backoff(first=0.1, most=2.0)


class Exposed:
    """A service that a client offers. From `Client.expose`.

    Attributes:
        service: its name.
        target: what is dialled for it.
        port: the server's port, 0 for a private one.
        error: why the server does not serve it now, None if it does.
    """

    def __init__(self, offer: Offer, target: Target) -> None:
        """Not for users."""
        self.service: str = offer.service
        self.target: Target = target
        self.port: int = offer.port
        self.error: Denied | None = None
        self.offer: Offer = offer
        self.answered: asyncio.Event = asyncio.Event()

    def packed(self) -> dict[str, object]:
        """Return what is said of it: the port that it has is asked for again."""
        offer = self.offer
        again = Offer(offer.service, offer.private, self.port, offer.exact, offer.sources)
        return again.pack()

    def take(self, answer: Message) -> None:
        """Take the server's answer. Not for users."""
        port, code = answer.fields.get("port"), answer.fields.get("code")
        if type(port) is int:
            self.port, self.error = port, None
        else:
            self.error = Denied(answer.text("text"), code if type(code) is int else 403)
            logger.warning("%s is not exposed: %s", self.service, self.error)
        self.answered.set()


class Forward:
    """A port of this machine that leads to something. From `Client.forward`.

    Attributes:
        service: what it leads to.
        address: host and port that are listened on.
    """

    def __init__(self, service: str, server: asyncio.Server) -> None:
        """Not for users."""
        self.service: str = service
        self.address: tuple[str, int] = server.sockets[0].getsockname()[:2]
        self._server = server

    def close(self) -> None:
        """Listen no more; connections go on. Harmless if repeated."""
        self._server.close()


class Client:
    """Stays connected to a server.

    ::

        state = ClientState(Path("state"))
        known = state.accept(Invitation.parse(text))
        async with Client(known, state) as client:
            exposed = await client.expose("web", "localhost:3000")
            print(exposed.port)

    It begins to dial when its block is entered; leaving the block ends its session. What it offers
    is offered to each next session again.
    """

    def __init__(
        self,
        known: Known,
        state: ClientState | None = None,
        *,
        config: Config = CONFIG,
        backoff: Backoff = BACKOFF,
        once: bool = False,
        timeout: float = 10.0,
        on_change: Callable[[DialerState], object] | None = None,
    ) -> None:
        """Say whom to dial.

        Args:
            known: the server, from `ClientState.accept` or `find`.
            state: is told when the invitation was redeemed.
            config: the session's settings.
            backoff: the pauses between tries.
            once: whether a denial, or a server that is not who it should be, is final.
            timeout: seconds for a try.
            on_change: called with the state of the dialer when it has changed.
        """
        self._known = known
        self._state = state
        self._config = config
        self._backoff = backoff
        self._places = cycle(known.invitation.places)
        self._context = client_context(known.invitation.pins)
        self._exposed: dict[str, Exposed] = {}
        self._forwards: list[Forward] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._control: Control | None = None
        final = (401, 403, ssl.SSLCertVerificationError) if once else ()
        self._dialer = Dialer(
            dial=self._dial, timeout=timeout, backoff=backoff, final=final, on_change=on_change
        )

    @property
    def dialer(self) -> Dialer:
        """What stays connected."""
        return self._dialer

    async def connected(self) -> Session:
        """Wait until the server has taken a session, and return it.

        Raises:
            Denied: with `once`, the server does not want this client.
            OSError: with `once`, the server is not who it should be.
        """
        return await self._dialer.session()

    async def expose(
        self,
        service: str,
        target: str | Target,
        *,
        port: int | None = None,
        private: bool = False,
        sources: tuple[str, ...] = (),
    ) -> Exposed:
        """Offer a service, and wait for the server's answer.

        Args:
            service: its name, a DNS label.
            target: what to dial for it: ``PORT``, ``HOST:PORT`` or ``unix:PATH``.
            port: the server's port. None: any one that this client has a right to.
            private: whether it is for other clients, and has no port.
            sources: the networks that may connect to the port; () for all.

        Raises:
            UsageError: an argument can't be, or the service is offered already.
            Denied: the server does not allow it, or the port is another's. It is offered to the
                next session again all the same, until `withdraw`.
        """
        if private and (port is not None or sources):
            raise UsageError("a private service has no port")
        if port is not None and not 0 < port < 65536:
            raise UsageError(f"no port: {port!r:.20}")
        if check_name(service) in self._exposed:
            raise UsageError(f"{service} is exposed already")
        offer = Offer(service, private, port or 0, port is not None, parse_sources(sources))
        exposed = Exposed(offer, Target.parse(target) if isinstance(target, str) else target)
        self._exposed[service] = exposed
        if self._control is not None:
            self._control.say("offer", **exposed.packed())
        while not exposed.answered.is_set():
            await self._wait(exposed)
        if exposed.error is not None:
            raise exposed.error
        return exposed

    async def _wait(self, exposed: Exposed) -> None:
        """Wait for an answer, or for a final error, which is raised."""
        answered = asyncio.create_task(exposed.answered.wait())
        session = asyncio.create_task(self._wait_answered())
        tasks: list[asyncio.Task[Any]] = [answered, session]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not answered.done():
                await session
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _wait_answered(self) -> None:
        """Wait while a session lives, which may answer."""
        session = await self._dialer.session()
        await session.wait_closed()

    def withdraw(self, service: str) -> None:
        """Offer a service no more; its connections are cut."""
        if self._exposed.pop(service, None) is not None and self._control is not None:
            self._control.say("withdraw", service=service)

    async def forward(self, service: str, host: str = "127.0.0.1", port: int = 0) -> Forward:
        """Listen on this machine for what leads through the server.

        Args:
            service: ``HOST:PORT`` beyond the server, or the name of what another client offers.
            host: the address to listen on.
            port: the port, 0 for any free one.

        Raises:
            UsageError: it is neither.
            OSError: the port can't be listened on.
        """
        if ":" in service:
            service = format_place(parse_place(service))
        else:
            check_name(service)

        async def arrive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await self._pass(service, reader, writer)

        server = await asyncio.start_server(arrive, host, port, backlog=1024)
        forward = Forward(service, server)
        self._forwards.append(forward)
        return forward

    async def __aenter__(self) -> Self:
        await self._dialer.__aenter__()
        serving = asyncio.create_task(self._serve(), name="muxado tunnel: client")
        self._tasks.add(serving)
        serving.add_done_callback(self._tasks.discard)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for forward in self._forwards:
            forward.close()
        try:
            await self._dialer.__aexit__(exc_type, exc, traceback)
        finally:
            tasks = set(self._tasks)
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    # The session

    async def _dial(self) -> Session:
        try:
            return await self._join()
        except (Denied, ssl.SSLCertVerificationError) as exc:
            logger.warning("the server can't be used: %s", exc)
            # Nothing that a quick try would change.
            exc.retry_after = self._backoff.most  # type: ignore[union-attr]
            raise

    async def _join(self) -> Session:
        host, port = next(self._places)
        known = self._known
        session = await connect(host, port, ssl=self._context, config=self._config, timeout=None)
        hello = {"key": known.key} | (
            {"token": known.invitation.token} if known.invitation.token else {}
        )
        offered = list(self._exposed.values())
        try:
            control, ok = await join(session, **hello, services=[each.packed() for each in offered])
        except Denied as exc:
            session.close()
            if known.invitation.token and exc.code == 401 and self._state is not None:
                self._state.rejected(known)
            raise
        except BaseException:
            session.abort(ErrorCode.STREAM_CANCELLED)
            raise
        if known.invitation.token:
            bare = Invitation("", known.invitation.places, known.invitation.pins)
            self._known = Known(known.name, bare, known.key)
            if self._state is not None:
                self._state.redeemed(known)
        self._control = control
        answers = ok.fields.get("services", [])
        for fields in answers if isinstance(answers, list) else []:
            if isinstance(fields, dict):
                self._answered(Message("offered", fields))
        for each in self._exposed.values():
            if each not in offered:  # it came meanwhile
                control.say("offer", **each.packed())
        task = asyncio.create_task(self._listen(control), name="muxado tunnel: control")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return session

    async def _listen(self, control: Control) -> None:
        """Do what the server says."""
        with contextlib.suppress(HeaderError):
            async for message in control:
                if message.type == "offered":
                    self._answered(message)
                elif message.type == "drain":
                    self._dialer.renew()
                elif message.type == "error":
                    logger.warning("the server says: %s", message.text("text"))
                elif message.type in ("replaced", "withdrawn"):
                    service = message.text("service")
                    logger.warning("the server serves %r no more: %s", service, message.type)
        if self._control is control:
            self._control = None

    def _answered(self, message: Message) -> None:
        exposed = self._exposed.get(message.text("service"))
        if exposed is not None:
            exposed.take(message)

    async def _serve(self) -> None:
        with contextlib.suppress(MuxadoError, OSError):  # what is final, `connected` raises
            await self._dialer.serve(self._handle)

    # Streams

    async def _handle(self, stream: Stream) -> None:
        """Pass a connection of the server's on to the target."""
        try:
            header = await read_header(stream)
        except (HeaderError, MuxadoError):
            return
        exposed = self._exposed.get(header.service)
        if exposed is None:
            logger.warning("the server asks for %r, which is not offered", header.service[:80])
            stream.reset(404)
            return
        try:
            pair = await exposed.target.dial()
        except OSError as exc:
            logger.warning("%s: %s can't be reached: %s", exposed.service, exposed.target, exc)
            stream.reset(UNREACHABLE)
            return
        await relay(stream, pair)

    async def _pass(
        self, service: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Pass a connection of this machine on to the server."""
        try:
            async with asyncio.timeout(TIMEOUT):
                stream = await self._dialer.open()
            stream.write_nowait(Header(service).pack())
        except (MuxadoError, OSError) as exc:
            logger.warning("%s can't be reached: %s", service, exc)
            writer.transport.abort()
            return
        await relay(stream, (reader, writer))
