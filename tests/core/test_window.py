"""Receive credit where a frame waits for memory, and where it tells the sender what was read."""

from __future__ import annotations

from muxado.wire import FORMATS
from muxado.wire.codec import CREDIT

from ..frames import read_frames
from .wires import NOW, said, session, smux

V1 = FORMATS["muxado-v1"]


def test_small_reads_while_a_frame_waits_for_memory_let_it_in_when_there_is_room() -> None:
    core = session("smux-v2", max_receive_memory=100)
    opening = smux(0, 3) + smux(0, 5)
    core.receive_data(opening + smux(2, 3, bytes(90)) + smux(2, 5, bytes(20)), NOW)
    first, second = core.accept(), core.accept()
    assert first is not None
    assert second is not None
    assert not core.wants_input
    for _ in range(2):
        assert len(first.read(4)) == 4
        core.handle_timer(NOW)
        assert second.unread() == 0
    first.read(2)
    core.handle_timer(NOW)
    assert second.unread() == 20
    assert core.wants_input


def test_what_waits_for_memory_is_taken_in_when_the_connection_is_gone() -> None:
    core = session("smux-v2", max_receive_memory=100)
    opening = smux(0, 3) + smux(0, 5)
    core.receive_data(opening + smux(2, 3, bytes(90)) + smux(2, 5, bytes(90)), NOW)
    assert not core.wants_input
    core.connection_lost(None, NOW)
    streams = [core.accept(), core.accept()]
    assert [stream.unread() for stream in streams if stream is not None] == [90, 90]


def test_what_a_reader_has_claimed_is_granted_once_also_if_it_closes() -> None:
    core = session("muxado-v1")
    core.receive_data(V1.encoder.open(3, 0, 0), NOW)
    core.receive_data(V1.encoder.data_header(3, 1000, False, False) + bytes(1000), NOW)
    stream = core.accept()
    assert stream is not None
    stream.claim(1000)
    stream.close()
    grants = [frame for frame in read_frames([said(core)], V1) if frame.kind == CREDIT]
    assert [frame.stream_id for frame in grants] == [3]
    assert grants[0].value >= 1000
    assert core.stats().memory_held == 0
    core.receive_data(V1.encoder.data_header(3, 10, False, False) + bytes(10), NOW)
    assert core.reason is None
