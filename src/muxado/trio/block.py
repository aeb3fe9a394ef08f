"""The block that a session of trio's front end lives in."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, NoReturn

import trio

from ..admission import Admission
from ..config import Config
from ..core import CoreSession
from ..errors import UsageError
from ..front_end import code_of
from ..proxy_protocol import ProxyHeader
from ..registry import SessionRecord
from .driver import Driver
from .secured import ChannelStream
from .session import Session

__all__ = ["SessionBlock"]


class SessionBlock(AbstractAsyncContextManager[Session]):
    """Runs a session for the length of an ``async with`` block.

    It is a class, as trio's own nurseries are, because KeyboardInterrupt must not come between
    the program's frame and the one that closes the nursery.

    Args:
        connect: makes the trio stream that carries the session, when the block is entered.
        given: the trio stream or socket that the session was given, None if it makes its own;
            it is closed if the block is never entered.
        client: True for the end that dialled.
        config: the session's settings.
        name: what to call it.
        admission: the server's that it is for; None if it is for none.
        proxy_header: what a proxy said of the connection.
        proxied: whether it goes through a proxy, which may end both ways with the first end it
            sees.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[trio.abc.Stream]],
        given: trio.abc.Stream | trio.socket.SocketType | None,
        *,
        client: bool,
        config: Config | None,
        name: str = "",
        admission: Admission | None = None,
        proxy_header: ProxyHeader | None = None,
        proxied: bool = False,
    ) -> None:
        self._entered = False
        self._session: Session | None = None  # while the block runs
        self._given = given
        self._connect = connect
        self._client = client
        self._config = config
        self._name = name
        self._admission = admission
        self._proxy_header = proxy_header
        self._proxied = proxied
        self._token: trio.lowlevel.TrioToken | None = None
        with contextlib.suppress(RuntimeError):  # it may be made before trio runs
            self._token = trio.lowlevel.current_trio_token()

    @classmethod
    def over(
        cls,
        stream: trio.abc.Stream,
        *,
        client: bool,
        config: Config | None,
        admission: Admission | None = None,
        proxy_header: ProxyHeader | None = None,
    ) -> SessionBlock:
        """Make one for a session over a trio stream that is there."""

        async def given() -> trio.abc.Stream:
            return stream

        return cls(
            given,
            stream,
            client=client,
            config=config,
            admission=admission,
            proxy_header=proxy_header,
        )

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Session:
        if self._entered:
            raise UsageError("a session's block can be entered once")
        self._entered = True
        transport = await self._connect()
        self._token = trio.lowlevel.current_trio_token()
        now = trio.current_time()
        admission = self._admission
        core = CoreSession(
            client=self._client,
            config=self._config or Config(),
            now=now,
            pool=None if admission is None else admission.pool,
        )
        if isinstance(transport, ChannelStream):
            core.agree(transport.agreed)
        elif isinstance(transport, trio.SSLStream):
            protocol = None
            with contextlib.suppress(trio.NeedHandshakeError):  # a stream of the caller's
                protocol = transport.selected_alpn_protocol()
            core.agree(protocol)
        whole = isinstance(transport, ChannelStream) and not transport.half_closes
        if self._proxied or whole:
            core.confirm_output()
        record = SessionRecord(core, self._name, self._proxy_header)
        self._driver = driver = Driver(core, transport, record)
        self._session = session = Session(driver)
        self._nursery = trio.open_nursery()
        nursery = await self._nursery.__aenter__()
        self._scope = nursery.cancel_scope
        driver.start(nursery)
        driver.record.began(session.local_address, session.remote_address)
        if admission is not None and not admission.admit(driver.record):
            driver.refuse()
        return session

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        session = self._session
        assert session is not None
        self._session = None
        driver = self._driver
        failure = exc
        if failure is None:
            try:
                await session.aclose()
            except BaseException as caught:
                failure = caught
        try:
            if failure is not None:
                session.abort(code_of(type(failure)))
            # The tasks end within a bounded time, and the nursery itself waits for them. It is not
            # given the exception, which it would wrap into a group.
            self._scope.shield = True
            await self._nursery.__aexit__(None, None, None)
            with trio.CancelScope(shield=True):
                await driver.finish()
            if driver.fatal is not None:
                raise driver.fatal
            if failure is not None and failure is not exc:
                raise failure
        finally:
            del failure, exc  # a cycle otherwise

    def __getattr__(self, name: str) -> NoReturn:
        raise not_entered(name, self)

    def __del__(self) -> None:
        session = self._session
        if not self._entered:
            message = "a session was not begun: its block was not entered"
        elif session is not None:
            message = f"unclosed session {session!r}"
        else:
            return
        try:
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)
        finally:
            if session is not None:
                self._soon(session.abort)
            elif self._given is not None:
                self._soon(trio.lowlevel.spawn_system_task, _discard, self._given)

    def _soon(self, function: Callable[..., object], *args: Any) -> None:
        if self._token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(function, *args)


def not_entered(name: str, block: object) -> AttributeError:
    """Return the error of a block that is used for what entering it gives."""
    return AttributeError(
        f"there is no {name!r} before the block is entered: use 'async with'",
        name=name,
        obj=block,
    )


async def _discard(given: trio.abc.Stream | trio.socket.SocketType) -> None:
    with contextlib.suppress(Exception):  # it would end the whole program
        if isinstance(given, trio.abc.Stream):
            await trio.aclose_forcefully(given)
        else:
            given.close()
