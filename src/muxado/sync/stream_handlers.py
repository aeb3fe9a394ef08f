"""The handlers of `Session.serve`: the I/O thread gives each stream to a thread as it comes in."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from ..base_stream import give_up
from ..errors import ErrorCode, SessionError
from ..front_end import log_stream_failure
from .driver import Driver
from .stream import Stream
from .workers import Running, Workers

logger: logging.Logger = logging.getLogger("muxado")


class StreamHandlers:
    """Runs a handler for each stream, in threads that are used again.

    Attributes:
        running: the streams whose handlers run.
    """

    def __init__(
        self,
        driver: Driver,
        take: Callable[[], Stream | None],
        handler: Callable[[Stream], object],
        limit: int | None,
        ended: Callable[[], object],
    ) -> None:
        self.running: Running[Stream] = Running()
        self._driver = driver
        self._take = take
        self._handler = handler
        self._limit = limit
        self._ended = ended  # called when the session takes no more streams, and none waits
        self._workers = Workers("muxado stream", driver)

    def begin(self) -> None:
        """Begin with the streams that wait, as far as the limit allows; with the lock held."""
        while self._limit is None or len(self.running) < self._limit:
            try:
                stream = self._take()
            except SessionError:
                self._ended()
                return
            if stream is None:
                return
            self.running.add(stream)
            self._workers.submit(partial(self._handle, stream), partial(self._refuse, stream))

    def _refuse(self, stream: Stream, exc: RuntimeError) -> None:
        logger.warning("no thread for stream %d: %s", stream.id, exc)
        give_up(stream, ErrorCode.STREAM_REFUSED)
        self.running.remove(stream)

    def end(self) -> None:
        """Let the threads end when they are done."""
        self._workers.close()

    def _handle(self, stream: Stream) -> None:
        try:
            run_handler(self._handler, stream)
        finally:
            self.running.remove(stream)
            if self._limit is not None:
                self._driver.do(self.begin)


def run_handler(handler: Callable[[Stream], object], stream: Stream) -> None:
    """Run a handler; its stream is closed at its end, or reset if it raises, which is logged."""
    try:
        with stream:
            handler(stream)
    except Exception as exc:
        log_stream_failure(stream, exc)
