"""The socket of a command that carries a session."""

from __future__ import annotations

import socket
from typing import Any

from ..commands import Command


class CommandSocket(socket.socket):
    """A command's socket, whose end of input is an error if the command has ended with one."""

    def __init__(self, command: Command) -> None:
        super().__init__(fileno=command.sock.detach())
        self._command = command

    def send(self, *args: Any) -> int:
        """Send as sockets do.

        Raises:
            CommandEnded: the command has ended with an error.
        """
        try:
            return super().send(*args)
        except ConnectionError:
            self._raise_failure()
            raise

    def recv_into(self, *args: Any) -> int:
        """Receive as sockets do.

        Raises:
            CommandEnded: the command has ended with an error.
        """
        try:
            count = super().recv_into(*args)
        except ConnectionError:  # as if it had not read all that it was sent
            self._raise_failure()
            raise
        if not count:
            self._raise_failure()
        return count

    def _raise_failure(self) -> None:
        failure = self._command.wait_failure()
        if failure is not None:
            raise failure from None

    def close(self) -> None:
        super().close()
        self._command.release()
