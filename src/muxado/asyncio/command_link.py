"""Carries a session over a command's socket, and tells how the command has ended."""

from __future__ import annotations

import contextlib

from ..commands import STATUS_WAIT, Command
from .driver import Driver
from .links import TransportLink


class CommandLink(TransportLink):
    """A link over a command's socket.

    A session that its command's end has cut off ends once the exit status is known.
    """

    def __init__(self, driver: Driver, command: Command) -> None:
        super().__init__(driver)
        self._command = command
        self._over = False

    def eof_received(self) -> bool:
        if self._orderly():
            return super().eof_received()
        return False  # the transport closes, and `connection_lost` is called

    def connection_lost(self, exc: Exception | None) -> None:
        self._command.release()
        if self._orderly():
            super().connection_lost(exc)
            return
        self.writable = False
        loop = self._driver.loop

        def exited() -> None:  # in another thread
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._ended, exc)

        loop.call_later(STATUS_WAIT, self._ended, exc)
        self._command.on_exit(exited)

    def _orderly(self) -> bool:
        core = self._driver.core
        return core.reason is not None or core.closing.peer_goaway is not None

    def _ended(self, exc: Exception | None) -> None:
        if not self._over:
            self._over = True
            super().connection_lost(self._command.failure() or exc)
