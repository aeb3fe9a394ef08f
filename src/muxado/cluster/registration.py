"""A session of this server that has a name, and what happens to it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import ExitStack

from ..asyncio import Session, Stream
from ..errors import SessionClosed
from .claims import Held
from .credentials import end_with_certificate
from .lines import Header

__all__ = ["Registration"]


class Registration:
    """A name that a session has. `Node.register` makes it; `remove` ends it, or the session does.

    Attributes:
        name: the name.
        session: the session.
        identity: whose it is, "" if that is not told apart.
        replaced: whether a newer session has the name.
        ends_session: whether its session ends soon after that.
    """

    def __init__(
        self,
        name: str,
        session: Session,
        *,
        identity: str,
        headers: bool,
        services: Collection[str] | None,
        drain: Callable[[], object] | None,
        on_replaced: Callable[[], object] | None,
        expires: float | None,
        movable: bool,
        ends_session: bool,
        on_stream: Callable[[Stream], object] | None,
        remove: Callable[[Registration], None],
    ) -> None:
        """Not for users."""
        self.name: str = name
        self.session: Session = session
        self.identity: str = identity
        self.replaced: bool = False
        self.ends_session: bool = ends_session
        self._headers = headers
        self._services = services
        self._drain = drain
        self._on_replaced = on_replaced
        self._movable = movable
        self._on_stream = on_stream
        self._remove = remove
        self._held: Held | None = None
        self._stack = ExitStack()
        self._stack.enter_context(end_with_certificate(session, expires))

    @property
    def epoch(self) -> int | None:
        """The epoch of its claim; None while the directory's engine is away."""
        return None if self._held is None else self._held.epoch

    @property
    def usable(self) -> bool:
        """Whether streams can be opened to it."""
        session = self.session
        return not (self.replaced or session.closed or session.peer_goaway is not None)

    def has(self, service: str) -> bool:
        """Return whether it has a service, as far as its services are known."""
        return self._services is None or service in self._services

    def open(self, header: Header, priority: int = 0, line: bytes | None = None) -> Stream:
        """Open a stream to the session, for what a header asks for.

        Args:
            header: the header.
            priority: as for `Session.open`.
            line: the header as a line, if there is one.

        Raises:
            SessionError: the session takes no more.
        """
        if self.replaced:
            raise SessionClosed("a newer session has the name")
        if line is None:
            line = header.pack()
        stream = self.session.open(priority=priority)
        if self._headers:
            stream.write_nowait(line)
        if self._on_stream is not None:
            self._on_stream(stream)
        return stream

    def remove(self) -> None:
        """Give the name up; the session goes on. Harmless if repeated."""
        self._stack.close()
        self._remove(self)

    # For the node

    @property
    def held(self) -> Held | None:
        """The claim of the name."""
        return self._held

    @held.setter
    def held(self, held: Held) -> None:
        self._held = held

    def begin_drain(self) -> None:
        """Ask the session to move to another server; end it, if it can't and does nothing."""
        if not self._movable and not self.session.stats().streams:
            self.session.close()
        elif self._drain is not None:
            self._drain()
        else:
            self.session.go_away(0, b"this server is about to end")

    def was_replaced(self) -> None:
        """Take note that a newer session has the name."""
        if self.replaced:
            return
        self.replaced = True
        if self._on_replaced is not None:
            self._on_replaced()
