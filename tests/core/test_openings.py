"""Streams that wait to be opened: in the order of their ids, whatever happens to some."""

from __future__ import annotations

from muxado.core import CoreSession
from muxado.errors import ErrorCode
from muxado.wire import FORMATS
from muxado.wire.codec import DATA
from tests import inside

from ..frames import read_frames
from .wires import NOW, said, session, yamux


def client() -> CoreSession:
    return session("yamux", client=True, ping_interval=None)


def opened(out: bytes) -> list[int]:
    """Return the ids of the streams that were opened, in their order on the wire."""
    return [frame.stream_id for frame in read_frames([out], FORMATS["yamux"]) if frame.syn]


def test_a_stream_that_is_reset_while_it_waits_is_not_opened() -> None:
    core = client()
    streams = [core.open() for _ in range(3)]
    streams[1].reset(ErrorCode.STREAM_CANCELLED)
    assert inside.scheduled(core) == 2
    assert opened(said(core)) == [1, 5]


def test_a_stream_that_is_reset_while_the_peer_takes_no_more_is_not_opened() -> None:
    core = client()
    streams = [core.open() for _ in range(258)]
    assert len(opened(said(core))) == 256
    streams[256].reset(ErrorCode.STREAM_CANCELLED)
    core.receive_data(yamux(1, 2, 1), NOW)
    assert opened(said(core)) == [streams[257].stream_id]


def test_a_priority_changes_nothing_in_the_order_of_the_ids() -> None:
    core = client()
    streams = [core.open() for _ in range(3)]
    streams[2].set_priority(7)
    for stream in streams:
        stream.write(b"%d" % stream.stream_id)
    frames = read_frames([said(core)], FORMATS["yamux"])
    assert [frame.stream_id for frame in frames if frame.syn] == [1, 3, 5]
    bodies = [bytes(frame.body) for frame in frames if frame.kind == DATA and frame.body]
    assert bodies == [b"5", b"1", b"3"]


def test_a_priority_counts_for_the_data_of_a_stream_that_is_open() -> None:
    core = client()
    first, second = core.open(), core.open()
    said(core)
    first.write(b"first")
    second.write(b"second")
    second.set_priority(1)
    bodies = [bytes(frame.body) for frame in read_frames([said(core)], FORMATS["yamux"])]
    assert bodies == [b"second", b"first"]


def test_a_reset_of_an_open_stream_takes_its_data_back() -> None:
    core = client()
    stream = core.open()
    said(core)
    stream.write(b"never mind")
    stream.reset(ErrorCode.STREAM_CANCELLED)
    assert said(core) == yamux(1, 8, 1)


def test_an_abort_opens_nothing_more() -> None:
    core = client()
    streams = [core.open() for _ in range(3)]
    core.abort(2, NOW)
    assert inside.scheduled(core) == 0
    assert not any(stream.scheduled for stream in streams)
    assert opened(said(core)) == []
