"""What input makes us do is in proportion to its length, however many streams there are.

Each of these once took seconds for one read's worth of frames, because every frame made us look
at every stream. The limits are far above what is needed, and far below that.
"""

from __future__ import annotations

from collections.abc import Callable
from time import process_time

from muxado.config import Config
from muxado.core import CoreSession, CoreStream
from muxado.core.buffers import Inbox
from tests import inside
from tests.patience import patience

from ..core.peer import data, goaway, rst

STREAMS = 10_000
WINDOW = 1024
NOW = 100.0
SECONDS = patience(1)


class Crowd:
    """A server with as many streams of the peer as it allows, all accepted."""

    def __init__(self, answer: bytes = b"", *, fin: bool = False) -> None:
        self.core = CoreSession(client=False, config=Config(initial_window=WINDOW), now=NOW)
        self.streams: list[CoreStream] = []
        for stream_id in range(3, 3 + 2 * STREAMS, 2):
            self.core.receive_data(data(stream_id, b"x", syn=True, fin=fin), NOW)
            stream = self.core.accept()
            assert stream is not None
            if answer:
                stream.write(answer)
            self.streams.append(stream)

    def flush(self) -> int:
        """Return how many bytes there were to send."""
        size = 0
        while wire := self.core.data_to_send(NOW, 1 << 20):
            size += len(wire)
        return size

    def hear(self, wire: bytes) -> None:
        self.core.receive_data(wire, NOW)
        assert self.core.reason is None


def check_quick(work: Callable[[], object]) -> None:
    start = process_time()
    work()
    assert process_time() - start < SECONDS


def test_goaways_do_not_look_at_every_stream_each() -> None:
    crowd = Crowd()
    check_quick(lambda: crowd.hear(b"".join(goaway(10**6 - i, 0) for i in range(16_000))))


def test_goaways_do_not_look_at_every_stream_of_ours_each() -> None:
    core = CoreSession(client=False, config=Config(), now=NOW)
    streams = [core.open(eager=True) for _ in range(STREAMS)]
    while core.data_to_send(NOW, 1 << 20):
        pass
    last = streams[-1].stream_id
    wire = b"".join(goaway(last - i, 0) for i in range(16_000))
    check_quick(lambda: core.receive_data(wire, NOW))
    assert [s.stream_id for s in inside.streams(core).values()] == list(range(2, last - 15_998, 2))


def test_resets_of_streams_that_wait_to_send_do_not_search() -> None:
    crowd = Crowd(b"answer")
    wire = b"".join(rst(stream.stream_id, 6) for stream in reversed(crowd.streams))
    check_quick(lambda: crowd.hear(wire))
    assert inside.scheduled(crowd.core) == 0
    assert not inside.streams(crowd.core)


def test_streams_that_wait_to_send_keep_their_turns_when_others_are_reset() -> None:
    crowd = Crowd(b"answer")
    crowd.hear(b"".join(rst(stream.stream_id, 6) for stream in crowd.streams[::2]))
    assert inside.scheduled(crowd.core) == STREAMS // 2
    wire = crowd.core.data_to_send(NOW, 1 << 30)
    assert wire.startswith(data(crowd.streams[1].stream_id, b"answer"))
    assert wire.count(b"answer") == STREAMS // 2


def test_fins_to_stalled_senders_do_not_search() -> None:
    crowd = stalled()
    wire = b"".join(data(stream.stream_id, fin=True) for stream in crowd.streams) * 3
    check_quick(lambda: crowd.hear(wire))
    assert crowd.flush() == STREAMS * 8  # each is asked after once


def test_asking_after_stalled_senders_does_not_search() -> None:
    crowd = stalled()
    core = crowd.core

    def ask() -> None:
        for tick in range(1, 30):
            core.handle_timer(NOW + tick / 100)

    check_quick(ask)
    assert crowd.flush() >= STREAMS * 8


def test_reading_while_senders_stall_does_not_look_at_them() -> None:
    crowd = stalled()
    ping = rst(1, 4)

    def read() -> None:
        for _ in range(1000):
            crowd.hear(ping)
            crowd.core.next_deadline()

    check_quick(read)


def test_looking_for_a_separator_does_not_look_at_everything_again() -> None:
    piece = bytes(64 * 1024)
    inbox = Inbox(piece)

    def look() -> None:
        for _ in range(1023):
            start = inbox.size
            inbox.append(piece)
            assert inbox.find(b"\n", start) < 0

    check_quick(look)


def test_changes_of_priority_do_not_search() -> None:
    core = CoreSession(client=True, config=Config(), now=NOW)
    streams = [core.open() for _ in range(4 * STREAMS)]
    for stream in streams:
        stream.write(b"x")

    def change() -> None:
        for stream in reversed(streams):
            stream.set_priority(1)

    check_quick(change)
    wire = core.data_to_send(NOW, 1 << 30)
    assert wire.startswith(data(streams[-1].stream_id, b"x", syn=True))
    assert inside.scheduled(core) == 0


def stalled() -> Crowd:
    """Have every stream wait for credit after the peer's FIN."""
    crowd = Crowd(bytes(WINDOW + 1), fin=True)
    crowd.flush()
    assert all(stream.queued() == 1 for stream in crowd.streams)
    return crowd
