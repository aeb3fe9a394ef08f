"""A link with a rate and a delay between two core sessions, in simulated time."""

from __future__ import annotations

from collections import deque

from muxado.config import Config
from muxado.core import CoreSession, CoreStream

PIECE = 16 * 1024


class Link:
    """A client and a server, `round_trip` seconds apart, with `rate` bytes per second each way.

    In front of it is a queue of `queue` bytes, which a sender fills as far as its credit goes.
    """

    def __init__(
        self,
        *,
        round_trip: float,
        rate: float,
        step: float,
        queue: int = 0,
        config: Config | None = None,
    ) -> None:
        config = config or Config()
        self.now = 0.0
        self.step = step
        self.client = CoreSession(client=True, config=config, now=0.0)
        self.server = CoreSession(client=False, config=config, now=0.0)
        self._ways = [
            _Way(self.client, self.server, round_trip / 2, rate, queue),
            _Way(self.server, self.client, round_trip / 2, rate, queue),
        ]

    def become(self, *, round_trip: float, rate: float) -> None:
        """Be another link from now on; what is under way arrives as it would have."""
        for way in self._ways:
            way.delay = round_trip / 2
            way.rate = rate

    def tick(self) -> None:
        """Let one step of time pass."""
        self.now += self.step
        for session in (self.client, self.server):
            if session.next_deadline() <= self.now:
                session.handle_timer(self.now)
        for way in self._ways:
            way.carry(self.now, self.step)


class _Way:
    def __init__(
        self, source: CoreSession, sink: CoreSession, delay: float, rate: float, queue: int
    ) -> None:
        self.source = source
        self.sink = sink
        self.delay = delay
        self.rate = rate
        self.queue = queue
        self.queued = 0
        self.waiting: deque[bytes] = deque()
        self.budget = 0.0
        self.under_way: deque[tuple[float, bytes]] = deque()

    def carry(self, now: float, step: float) -> None:
        self.budget = min(self.budget, 0.0) + self.rate * step
        while self.budget > 0:
            self.fill(now)
            if not self.waiting:
                break
            data = self.waiting.popleft()
            self.queued -= len(data)
            self.budget -= len(data)
            self.under_way.append((now + self.delay, data))
        self.fill(now)
        while self.under_way and self.under_way[0][0] <= now:
            self.sink.receive_data(self.under_way.popleft()[1], now)

    def fill(self, now: float) -> None:
        """Take what the sender has, as far as there is room; one piece always is let in."""
        while not self.waiting or self.queued < self.queue:
            data = self.source.data_to_send(now, PIECE)
            if not data:
                return
            self.queued += len(data)
            self.waiting.append(data)


class Bulk:
    """A stream that is always full at one end and read as fast as allowed at the other.

    Attributes:
        read: how many bytes have been read.
    """

    def __init__(self, link: Link, read_rate: float = float("inf")) -> None:
        self.link = link
        self.read_rate = read_rate
        self.allowed = 0.0
        self.read = 0
        self.source = link.client.open(eager=True)
        self.sink: CoreStream | None = None
        self.chunk = bytes(256 * 1024)

    def work(self) -> None:
        """Write and read what is possible now."""
        while self.source.queued() < 1024 * 1024:
            self.source.write(self.chunk)
        if self.sink is None:
            self.sink = self.link.server.accept()
            return
        self.allowed = min(self.allowed + self.read_rate * self.link.step, 1 << 24)
        while self.allowed >= 1 and (got := len(self.sink.read(int(min(self.allowed, 1 << 18))))):
            self.read += got
            self.allowed -= got


def run(link: Link, bulks: list[Bulk], seconds: float) -> float:
    """Run for some seconds; return the bytes per second that were read."""
    before = sum(bulk.read for bulk in bulks)
    end = link.now + seconds
    while link.now < end:
        link.tick()
        for bulk in bulks:
            bulk.work()
    return (sum(bulk.read for bulk in bulks) - before) / seconds
