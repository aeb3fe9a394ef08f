"""Two core sessions joined by a wire that can cut the bytes anywhere, without sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from muxado.config import Config
from muxado.core import CoreSession, CoreStream

Cut = Callable[[bytes], Iterator[bytes]]


def whole(data: bytes) -> Iterator[bytes]:
    yield data


def byte_by_byte(data: bytes) -> Iterator[bytes]:
    for index in range(len(data)):
        yield data[index : index + 1]


def pieces(size: int) -> Cut:
    def cut(data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), size):
            yield data[start : start + size]

    return cut


class Pair:
    """A client and a server; `run` carries bytes until both have nothing more to say."""

    def __init__(
        self,
        config: Config | None = None,
        server_config: Config | None = None,
        *,
        cut: Cut = whole,
        limit: int = 65536,
    ) -> None:
        config = config or Config()
        self.now = 100.0
        self.client = CoreSession(client=True, config=config, now=self.now)
        self.server = CoreSession(client=False, config=server_config or config, now=self.now)
        self.cut = cut
        self.limit = limit

    def carry(self, source: CoreSession, sink: CoreSession) -> int:
        """Carry one flush of `source` to `sink`; return how many bytes it had."""
        data = source.data_to_send(self.now, self.limit)
        for piece in self.cut(data):
            sink.receive_data(piece, self.now)
        if sink.paused:
            sink.resume(self.now)
        return len(data)

    def run(self, rounds: int = 10_000) -> None:
        """Carry bytes both ways until neither side has any."""
        for _ in range(rounds):
            if not self.carry(self.client, self.server) + self.carry(self.server, self.client):
                return
        raise AssertionError("the sessions never fall silent")

    def advance(self, seconds: float) -> None:
        """Let time pass, timer by timer, carrying what the timers have to say."""
        end = self.now + seconds
        while True:
            due = min(self.client.next_deadline(), self.server.next_deadline())
            if due > end:
                break
            self.now = max(self.now, due)
            self.client.handle_timer(self.now)
            self.server.handle_timer(self.now)
            self.run()
        self.now = end

    def open_pair(self, **options: int) -> tuple[CoreStream, CoreStream]:
        """Open a stream from the client and accept it on the server."""
        near = self.client.open(eager=True, **options)
        self.run()
        far = self.server.accept()
        assert far is not None
        return near, far


def drain(stream: CoreStream) -> bytes:
    """Read everything that is there."""
    parts = []
    while data := stream.read(1 << 20):
        parts.append(data)
    return b"".join(parts)
