"""The stream of a command that carries a session."""

from __future__ import annotations

import trio

from ..commands import Command, CommandEnded


class CommandStream(trio.abc.HalfCloseableStream):
    """A command's stream, whose end of input is an error if the command has ended with one.

    Attributes:
        socket: its socket.
    """

    def __init__(self, command: Command) -> None:
        self._command = command
        self.socket: trio.socket.SocketType = trio.socket.from_stdlib_socket(command.sock)
        self._stream = trio.SocketStream(self.socket)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError as exc:
            raise exc from await self._failure() or exc.__cause__

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive as streams do.

        Raises:
            BrokenResourceError: the connection was lost; from `CommandEnded` if the command has
                ended with an error.
        """
        try:
            data = await self._stream.receive_some(max_bytes)
        except trio.BrokenResourceError as exc:
            raise exc from await self._failure() or exc.__cause__
        if not data:
            failure = await self._failure()
            if failure is not None:
                raise trio.BrokenResourceError from failure
        return bytes(data)

    async def _failure(self) -> CommandEnded | None:
        wait = self._command.wait_failure
        return await trio.to_thread.run_sync(wait, abandon_on_cancel=True)

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._command.release()
