"""The client of the tunnel: offers services, and listens for what is to be reached.

A server names services, never targets: the client dials only what it was told for a service here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Coroutine
from itertools import cycle
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..asyncio import Dialer, Session, Stream, connect
from ..base_stream import give_up
from ..cluster.control import Control, join
from ..cluster.errors import Denied, HeaderError
from ..cluster.lines import Header, Message
from ..cluster.member import MemberDialer, read_header
from ..cluster.names import check_name
from ..config import Config
from ..errors import ErrorCode, MuxadoError, UsageError
from ..redial import Backoff, DialerState
from .denials import Denials
from .forwarding import Forward
from .invitations import Place, format_place, parse_place
from .messages import (
    REPLACED,
    SOCKS,
    UNREACHABLE,
    Offer,
    check_private,
    check_service,
    parse_sources,
    right_for,
)
from .offers import Exposed
from .outages import Outages, why
from .pins import HTTP, client_context
from .rules import Rights
from .server import CONFIG
from .socks import SocksRefused, SocksTarget
from .state import ClientState, Known
from .targets import TIMEOUT, Target

if TYPE_CHECKING:
    from typing import Self

__all__ = ["BACKOFF", "Client"]

logger: logging.Logger = logging.getLogger("muxado.tunnel")

BACKOFF = Backoff(first=0.1, most=2.0)

WITHDRAWN = "the right to it was taken away"


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
        proxy: str | None = "env",
        on_change: Callable[[DialerState], object] | None = None,
        on_answer: Callable[[Exposed], object] | None = None,
    ) -> None:
        """Say whom to dial.

        Args:
            known: the server, from `ClientState.accept` or `find`.
            state: is told when the invitation was redeemed.
            config: the session's settings.
            backoff: the pauses between tries.
            once: whether a denial, or a server that is not who it should be, is final.
            timeout: seconds for a try.
            proxy: the proxy to dial through, as for `muxado.connect`; by default the environment's.
            on_change: called with the state of the dialer when it has changed.
            on_answer: called when the server has said something new of a service.
        """
        self._state = state
        self._config = config
        self._backoff = backoff
        self._proxy = proxy
        self._use(known)
        self._rights: Rights | None = None
        self._name = "NAME"  # what the server calls this client
        self._on_answer = on_answer
        self._exposed: dict[str, Exposed] = {}
        self._forwards: list[Forward] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._control: Control | None = None
        self._leaving: Control | None = None  # of a server that is about to end
        self._on_change = on_change
        self._outages = Outages()
        self._heard = Denials()
        self._was = ""  # the dialer's state
        final = (401, 403, ssl.SSLCertVerificationError) if once else ()
        self._dialer = MemberDialer(
            dial=self._dial, timeout=timeout, backoff=backoff, final=final, on_change=self._changed
        )

    @property
    def dialer(self) -> Dialer:
        """What stays connected."""
        return self._dialer

    @property
    def trouble(self) -> str:
        """Why there was no session the last time that there was none, for people."""
        error = self._dialer.last_error
        return "it does not answer" if error is None else why(error)

    async def connected(self) -> Session:
        """Wait until the server has taken a session, and return it.

        Raises:
            Denied: with `once`, the server does not want this client.
            OSError: with `once`, the server is not who it should be.
        """
        return await self._dialer.session()

    def offer(
        self,
        service: str,
        target: str | Target | SocksTarget,
        *,
        port: int | None = None,
        private: bool = False,
        sources: tuple[str, ...] = (),
        proxy_protocol: bool = False,
    ) -> Exposed:
        """Offer a service, to this session and each that follows, without waiting.

        The server's answer is in what is returned; what it denies is offered again every now and
        then, since the reason may pass.

        Args:
            service: its name, a DNS label.
            target: what to dial for it: ``PORT``, ``HOST:PORT`` or ``unix:PATH``; a `SocksTarget`
                lets callers choose.
            port: the server's port. None: any one that this client has a right to.
            private: whether it is for other clients, and has no port.
            sources: the networks that may connect to the port; () for all.
            proxy_protocol: whether the target is told the caller's address, by a header of the
                PROXY protocol, version 2, before anything else.

        Raises:
            UsageError: an argument can't be, or the service is offered already.
        """
        if private:
            check_private(port, sources)
        if port is not None and not 0 < port < 65536:
            raise UsageError(f"no port: {port!r:.20}")
        if check_name(service) in self._exposed:
            raise UsageError(f"{service} is exposed already")
        if isinstance(target, SocksTarget) and proxy_protocol:
            raise UsageError("targets that callers choose are told nothing: no PROXY protocol")
        offer = Offer(service, private, port or 0, port is not None, parse_sources(sources))
        found = Target.parse(target) if isinstance(target, str) else target
        exposed = self._exposed[service] = Exposed(offer, found, proxy_protocol)
        if self._control is not None:
            self._control.say("offer", **exposed.packed())
        return exposed

    async def expose(
        self,
        service: str,
        target: str | Target | SocksTarget,
        *,
        port: int | None = None,
        private: bool = False,
        sources: tuple[str, ...] = (),
        proxy_protocol: bool = False,
    ) -> Exposed:
        """Offer a service, and wait for the server's answer.

        Args:
            service: as for `offer`, and so are the following.
            target: see there.
            port: see there.
            private: see there.
            sources: see there.
            proxy_protocol: see there.

        Raises:
            UsageError: an argument can't be, or the service is offered already.
            Denied: the server does not allow it, or the port is another's. It is offered again
                all the same, until `withdraw`.
        """
        exposed = self.offer(
            service,
            target,
            port=port,
            private=private,
            sources=sources,
            proxy_protocol=proxy_protocol,
        )
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
        return await self._listen_on(check_service(service), host, port)

    async def socks(self, host: str = "127.0.0.1", port: int = 0) -> Forward:
        """Listen on this machine for SOCKS5, which leads to places beyond the server.

        The server looks names up.

        Args:
            host: the address to listen on.
            port: the port, 0 for any free one.

        Raises:
            OSError: the port can't be listened on.
        """
        return await self._listen_on(SOCKS, host, port)

    async def _listen_on(self, service: str, host: str, port: int) -> Forward:
        async def connect() -> Stream:
            try:
                async with asyncio.timeout(TIMEOUT):
                    return await self._open(service)
            except TimeoutError:
                raise OSError(f"there is no session with the server: {self.trouble}") from None

        forward = Forward(service)
        await forward.listen(host, port, connect)
        self._forwards.append(forward)
        return forward

    async def open(self, service: str) -> Stream:
        """Open a stream that leads through the server, once there is a session.

        What can't be had is reset: with 403 for want of a right, 404 if no client offers it, and
        502 if it can't be reached from the far end.

        Args:
            service: as for `forward`.

        Raises:
            UsageError: it is neither.
            Denied: with `once`, the server does not want this client.
            OSError: with `once`, the server is not who it should be.
        """
        return await self._open(check_service(service))

    async def _open(self, service: str) -> Stream:
        stream = await self._dialer.open()
        stream.write_nowait(Header(service).pack())
        return stream

    def lacks(self, service: str) -> str:
        """Return the right that the server has to give for a service, as far as it has told.

        Args:
            service: as for `forward`, or `SOCKS`.

        Returns:
            the right, or an empty text where none is known to be lacking; where a name leads is
            judged when it is dialled.
        """
        rights = self._rights
        if rights is None:
            return ""
        if service == SOCKS:
            enough = rights.has("socks")
        elif ":" in service:
            enough = rights.might_dial("forward", *parse_place(service))
        else:
            enough = rights.may_reach(service)
        return "" if enough else right_for(service)

    def remedy(self, right: str) -> str:
        """Return what has to be done to give this client a right, for people."""
        return f"on the server, `muxado rights {self._name} --add {right}` gives it"

    def status(self) -> dict[str, Any]:
        """Return whether it is connected, and what it offers and listens for; no secrets.

        ``denied`` says why the server does not want the client, or a service.
        """
        state = self._dialer.state
        error = None if state == "connected" else self._dialer.last_error
        refused = isinstance(error, Denied | ssl.SSLCertVerificationError)
        return {
            "server": self._known.name,
            "pins": list(self._known.invitation.pins),
            "state": str(state),
            "denied": str(error) if refused else "",
            "error": "" if error is None else why(error),
            "services": [each.status() for each in self._exposed.values()],
            "forwards": [
                each.status() | {"lacks": self.lacks(each.service)}
                for each in self._forwards
                if each.listening
            ],
        }

    async def __aenter__(self) -> Self:
        await self._dialer.__aenter__()
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
            for forward in self._forwards:
                forward.close(cut=True)
                await forward.wait_closed()
            tasks = set(self._tasks)
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    # The session

    async def _dial(self) -> Session:
        try:
            try:
                return await self._join()
            except Denied as exc:
                if exc.code != 401 or not self._has_new_key():
                    raise
                logger.info("there is a new key for the server in the state folder: it is used")
                return await self._join()
        except (Denied, ssl.SSLCertVerificationError) as exc:
            # Nothing that a quick try would change.
            exc.retry_after = self._backoff.most  # type: ignore[union-attr]
            self._stay()
            raise
        except OSError:
            self._stay()
            raise

    def _stay(self) -> None:
        """Tell a server that is about to end that its only address leads to no other one."""
        if self._leaving is not None and len(self._known.invitation.places) == 1:
            self._leaving.say("stays")
            self._leaving = None

    def _use(self, known: Known) -> None:
        """Dial a server from now on."""
        self._known = known
        self._places = cycle(known.invitation.places)
        self._place: Place = known.invitation.places[0]  # that was dialled last
        web = HTTP if known.invitation.path else None
        self._context = client_context(known.invitation.pins, web)

    def _has_new_key(self) -> bool:
        """Look whether another process has taken a new invitation meanwhile, and use its key."""
        if self._state is None:
            return False
        found = self._state.servers().get(self._known.name)
        if found is None or found.key == self._known.key:
            return False
        self._use(found)
        return True

    def _changed(self, state: DialerState) -> None:
        """Say what has become of the session."""
        before, self._was = self._was, str(state)
        error = self._dialer.last_error
        if state == "connected":
            self._outages.over()
        elif before == "connected" and state in ("connecting", "draining", "waiting"):
            self._outages.lost(error)
        elif (before, state) == ("connecting", "waiting") and error is not None:
            self._outages.failed(error, format_place(self._place))
        if self._on_change is not None:
            self._on_change(state)

    async def _join(self) -> Session:
        known = self._known
        self._place = next(self._places)
        session = await self._reach(*self._place)
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
            self._known = Known(known.name, known.invitation.spent(), known.key)
            if self._state is not None:
                self._state.redeemed(known)
        if self._control is not None:
            self._control.say("moved")  # the last server need not listen any more
        self._control, self._leaving = control, None
        self._rights, self._name = _rights_of(ok), ok.text("name")
        answers = ok.fields.get("services", [])
        for fields in answers if isinstance(answers, list) else []:
            if isinstance(fields, dict):
                self._answered(Message("offered", fields))
        for each in self._exposed.values():
            if each not in offered:  # it came meanwhile
                control.say("offer", **each.packed())
        self._start(self._listen(control), "muxado tunnel: control")
        session.on_stream(self._arrived)
        return session

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Have a task do something, which ends with this client."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reach(self, host: str, port: int) -> Session:
        """Make a session, whose server is verified, with nothing said on it."""
        config, context = self._config, self._context
        invitation = self._known.invitation
        if not invitation.path:
            return await connect(
                host, port, ssl=context, config=config, timeout=None, proxy=self._proxy
            )
        from ..carriers import websockets

        url = f"wss://{format_place((host, port))}{invitation.path}"
        return await websockets.connect(
            url, ssl=context, config=config, timeout=None, proxy=self._proxy
        )

    async def _listen(self, control: Control) -> None:
        """Do what the server says."""
        with contextlib.suppress(HeaderError):
            async for message in control:
                if message.type == "offered":
                    self._answered(message)
                elif message.type == "drain":
                    self._leaving = control
                    self._dialer.renew()
                elif message.type == "error":
                    self._heard.tell(
                        "error", "the server", f"the server says: {message.text('text')}"
                    )
                elif message.type == "withdrawn":
                    self._answered(Message("offered", message.fields | {"text": WITHDRAWN}))
                elif message.type == "rights":
                    self._rights = _rights_of(message)
                    logger.info("the server has changed what this client may do")
                elif message.type == "replaced":
                    self._replaced(message.text("service"))
        if self._control is control:
            self._control = None
        if self._leaving is control:
            self._leaving = None

    def _answered(self, message: Message) -> None:
        """Take an answer; offer again later what is denied."""
        exposed = self._exposed.get(message.text("service"))
        if exposed is None:
            return
        before = exposed.error
        if exposed.take(message):
            if exposed.error is not None:
                told = f"; {self.remedy(exposed.right)}" if exposed.error.code == 403 else ""
                logger.warning("%s is not exposed: %s%s", exposed.service, exposed.error, told)
            elif before is not None:
                logger.info("%s is exposed again", exposed.service)
            self._tell(exposed)
        if exposed.error is not None:
            self._offer_later(exposed)

    def _offer_later(self, exposed: Exposed) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(self._backoff.most, self._offer_again, exposed, self._control)

    def _offer_again(self, exposed: Exposed, control: Control | None) -> None:
        current = self._exposed.get(exposed.service) is exposed and self._control is control
        if current and control is not None and exposed.error is not None:
            control.say("offer", **exposed.packed())

    def _replaced(self, service: str) -> None:
        """Leave a service to a newer session of this client, until that one has gone."""
        exposed = self._exposed.get(service)
        if exposed is not None:
            exposed.error, exposed.replaced = Denied(REPLACED, 409), True
            logger.warning(
                "%s is not exposed here any more: %s, as another process of the same state folder"
                " does; it is taken back when that one has gone",
                service,
                exposed.error,
            )
            self._tell(exposed)
            self._offer_later(exposed)

    def _tell(self, exposed: Exposed) -> None:
        if self._on_answer is not None:
            self._on_answer(exposed)

    # Streams

    def _arrived(self, stream: Stream) -> None:
        """Take a connection of the server's. Its task ends when the target is connected."""
        self._start(self._handle(stream), "muxado tunnel: connection")

    async def _handle(self, stream: Stream) -> None:
        """Connect it to the target."""
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
            await exposed.connect(stream, header)
        except SocksRefused as exc:
            stream.close()
            logger.warning("%s: %s", exposed.service, exc)
        except MuxadoError:
            give_up(stream)  # the caller has gone
        except OSError as exc:
            logger.warning("%s: %s can't be reached: %s", exposed.service, exposed.target, why(exc))
            give_up(stream, UNREACHABLE)
        except BaseException:
            give_up(stream)
            raise


def _rights_of(ok: Message) -> Rights | None:
    """Return the rights that a server names; None if it names what this version does not know."""
    lines = ok.fields.get("rights")
    try:
        return Rights(lines) if isinstance(lines, list) else None
    except (UsageError, AttributeError):
        return None
