"""A client of a cluster: it has a name, and stays connected to one of the servers.

It dials the servers in turn, and says hello; the session counts once that was answered, so the
last one is let go only when the next one has the name. At `drain` it moves to another server.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from itertools import cycle
from ssl import SSLContext
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..asyncio import Dialer, Session, Stream, connect
from ..config import Config
from ..errors import ErrorCode, SessionError, UsageError
from ..redial import Backoff
from .control import Control, join
from .errors import HeaderError
from .lines import HEADER_LIMIT, Header
from .names import check_name

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Member", "read_header"]

CONFIG = Config(ping_interval=5.0, ping_timeout=10.0)


async def read_header(stream: Stream) -> Header:
    """Read the header with which a server begins a stream. What follows it is left.

    Raises:
        HeaderError: it begins otherwise. The stream is reset.
    """
    try:
        line = await stream.readuntil(b"\n")
        if len(line) > HEADER_LIMIT:
            raise HeaderError("the header is too long")
        return Header.unpack(line)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, HeaderError) as exc:
        stream.reset(ErrorCode.PROTOCOL_ERROR)
        raise HeaderError(f"the stream begins with no header: {exc}") from exc


class MemberDialer(Dialer):
    """Lets the last session go once everything has come that was sent to it.

    When the next one was answered, the last one's server opens no more streams; but some may be on
    their way. The first ping is behind what was said last, the second behind what that has caused.

    Args:
        leave: called first, with the last session: has its server open no more streams, where it
            may not have heard of the next one yet.
        options: as for `Dialer`.
    """

    def __init__(
        self, *, leave: Callable[[Session], Awaitable[object]] | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self._leave = leave

    def _let_go(self, session: Session) -> None:
        self._start(self._retire(session))

    async def _retire(self, session: Session) -> None:
        with contextlib.suppress(SessionError, TimeoutError):
            async with asyncio.timeout(session.config.close_timeout):
                if self._leave is not None:
                    await self._leave(session)
                await session.ping()
                await session.ping()
        await session.shutdown(None)


class Member:
    """A client that has a name, and serves the streams that are opened to it.

    ::

        async def answer(stream, header):
            await stream.write(b"I am web-17")

        async with Member("web-17", [("a.example", 7443), ("b.example", 7443)], answer, ssl=tls):
            await asyncio.Future()

    It begins to dial when its block is entered; leaving the block ends its session.
    """

    def __init__(
        self,
        name: str,
        servers: Sequence[tuple[str, int]],
        handler: Callable[[Stream, Header], Awaitable[object]] | None,
        *,
        key: str = "",
        services: Collection[str] | None = None,
        ssl: SSLContext | bool | None = None,
        server_hostname: str | None = None,
        backoff: Backoff = Backoff(first=0.1, most=2.0),  # noqa: B008  # it can't be changed
        config: Config = CONFIG,
        timeout: float = 10.0,
        **meta: Any,
    ) -> None:
        """Say who it is, and where the servers are.

        Args:
            name: its name, a DNS label.
            servers: pairs of host and port, which are dialled in turn.
            handler: a coroutine function, called with each stream and its header. None: streams
                have no header, and are the program's to take from each session of `dialer`, with
                an HTTP server for example.
            key: a secret that hello says, for the server's `authenticate`.
            services: what it has; None if the handler judges every service.
            ssl: as for `muxado.connect`.
            server_hostname: as for `muxado.connect`.
            backoff: the pauses between tries.
            config: the sessions' settings.
            timeout: seconds for a try.
            meta: what hello says besides.

        Raises:
            UsageError: it is no name, or there are no servers.
        """
        self._name = check_name(name)
        if not servers:
            raise UsageError("a member needs servers")
        self._servers = cycle(servers)
        self._handler = handler
        self._options = {"ssl": ssl, "server_hostname": server_hostname, "config": config}
        hello: dict[str, object] = {"name": name, "movable": len(set(servers)) > 1}
        hello |= {"headers": False} if handler is None else {}
        hello |= {"key": key} if key else {}
        hello |= {} if services is None else {"services": sorted(services)}
        self._hello = hello | ({"meta": meta} if meta else {})
        self._controls: dict[Session, tuple[Control, asyncio.Event]] = {}  # and an event: replaced
        self._listeners: set[asyncio.Task[None]] = set()
        self._serving: asyncio.Task[None] | None = None
        self._dialer = MemberDialer(
            leave=self._leave, dial=self._dial, timeout=timeout, backoff=backoff
        )

    @property
    def dialer(self) -> Dialer:
        """What stays connected."""
        return self._dialer

    async def connected(self) -> Session:
        """Wait until there is a session that a server has taken, and return it."""
        return await self._dialer.session()

    async def __aenter__(self) -> Self:
        await self._dialer.__aenter__()
        if self._handler is not None:
            serving = self._dialer.serve(partial(self._handle, self._handler))
            self._serving = asyncio.create_task(serving, name="muxado member")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._dialer.__aexit__(exc_type, exc, traceback)
        finally:
            tasks = set(self._listeners)
            if self._serving is not None:
                tasks.add(self._serving)
            for task in tasks:
                task.cancel()
            # What the dialer has failed with is for who asks for a session.
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _dial(self) -> Session:
        host, port = next(self._servers)
        session = await connect(host, port, timeout=None, **self._options)  # type: ignore[arg-type]
        try:
            control, _ = await join(session, **self._hello)
        except BaseException:
            session.abort(ErrorCode.STREAM_CANCELLED)
            raise
        listening = asyncio.create_task(self._listen(control), name="muxado member: control")
        self._listeners.add(listening)
        listening.add_done_callback(self._listeners.discard)
        return session

    async def _listen(self, control: Control) -> None:
        """Do what the server says."""
        session = control.session
        replaced = asyncio.Event()
        self._controls[session] = control, replaced
        try:
            with contextlib.suppress(HeaderError):
                async for message in control:
                    if message.type == "drain":
                        self._dialer.renew()
                    elif message.type == "replaced":
                        replaced.set()
        finally:
            replaced.set()
            del self._controls[session]

    async def _leave(self, session: Session) -> None:
        """Tell a server that the name is elsewhere, and wait until it has let go of it."""
        if session in self._controls:
            control, replaced = self._controls[session]
            control.say("moved")
            await replaced.wait()

    async def _handle(
        self, handler: Callable[[Stream, Header], Awaitable[object]], stream: Stream
    ) -> None:
        await handler(stream, await read_header(stream))
