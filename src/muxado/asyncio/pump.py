"""A session's bytes over any reader and writer: a subprocess's pipes, another library's pair."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

from .driver import Driver

READ_SIZE = 64 * 1024


class Reader(Protocol):
    """What is needed of a reader."""

    async def read(self, n: int, /) -> bytes:
        """Return up to `n` bytes, b"" at the end."""
        ...


class Writer(Protocol):
    """What is needed of a writer."""

    def write(self, data: bytes, /) -> object:
        """Take bytes to send."""

    async def drain(self) -> None:
        """Wait until more may be written."""

    def close(self) -> object:
        """End the output."""


class PumpLink:
    """Carries a session over a reader and a writer, with a task for each."""

    def __init__(self, driver: Driver, reader: Reader, writer: Writer, name: str) -> None:
        self.writable: bool = True
        self._driver = driver
        self._reader = reader
        self._writer = writer
        self._data = asyncio.Event()
        self._output = b""
        self._closing = False
        self._ended = False  # the reader
        self._tasks: list[asyncio.Task[None]] = []
        can_write_eof = getattr(writer, "can_write_eof", None)
        self._can_write_eof: bool = can_write_eof is not None and can_write_eof()
        driver.core.confirm_output = not self._can_write_eof
        loop = driver.loop
        driver.link = self
        for work, what in ((self._read(), "reading"), (self._write(), "writing")):
            self._tasks.append(loop.create_task(work, name=f"{name} {what}"))

    async def _read(self) -> None:
        driver = self._driver
        try:
            while data := await self._reader.read(READ_SIZE):
                driver.received_data(data)
            driver.received_eof()
        except Exception as exc:
            self._fail(exc)
        self._ended = True
        if self._closing:
            self._fail(None)

    async def _write(self) -> None:
        try:
            while True:
                await self._data.wait()
                self._data.clear()
                if self._output:
                    data, self._output = self._output, b""
                    self._writer.write(data)
                    await self._writer.drain()
                    self.writable = True
                    self._driver.flush()
                if self._closing and not self._output:
                    break
            if self._can_write_eof:
                self._writer.write_eof()  # type: ignore[attr-defined]
            else:
                self._writer.close()
        except Exception as exc:
            # What the peer has said before it stopped to read is still to be read.
            self.writable = False
            self._closing = True
            if not self._ended:
                self._driver.loop.call_later(
                    self._driver.core.config.close_timeout, self._fail, exc
                )
                return
            self._fail(exc)
        if self._ended:
            self._fail(None)

    def _fail(self, exc: Exception | None) -> None:
        self._stop()
        self._driver.connection_lost(exc)

    def _stop(self) -> None:
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        with contextlib.suppress(Exception):
            self._writer.close()

    # For the driver

    def write(self, data: bytes) -> None:
        self._output += data
        self.writable = False
        self._data.set()

    def half_close(self) -> None:
        self._closing = True
        self._data.set()

    def close(self) -> None:
        self.half_close()

    def abort(self) -> None:
        if self._output:  # a farewell
            with contextlib.suppress(Exception):
                self._writer.write(self._output)
        transport = getattr(self._writer, "transport", None)
        # asyncio's write pipe breaks when it is aborted on its last step of closing.
        if transport is not None and (
            not transport.is_closing() or transport.get_write_buffer_size()
        ):
            transport.abort()
        self._driver.loop.call_soon(self._fail, None)

    def get_extra_info(self, name: str, default: object = None) -> object:
        get = getattr(self._writer, "get_extra_info", None)
        return default if get is None else get(name, default)
