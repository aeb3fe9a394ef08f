"""Streams that wait for credit where the peer is not asked, but given up."""

from __future__ import annotations

import struct

import pytest

from muxado.core import CLOSED, CoreSession, CoreStream
from muxado.errors import ErrorCode, StreamReset
from muxado.wire import FORMATS

from ..frames import read_frames
from .wires import NOW, session, smux, total

WINDOW = 262_144


def stalling(**settings: object) -> tuple[CoreSession, CoreStream]:
    """A client whose stream has more to send than the peer lets it."""
    core = session("smux-v2", client=True, ping_interval=None, stall_timeout=7.0, **settings)
    stream = core.open()
    stream.write(bytes(WINDOW + 1000))
    return core, stream


def sent(core: CoreSession, now: float = NOW) -> int:
    """Flush; return how many bytes of payload that was."""
    out = core.data_to_send(now, 1 << 20)
    return sum(frame.length for frame in read_frames([out], FORMATS["smux-v2"]))


def test_a_peer_that_takes_its_credit_back_is_sent_nothing() -> None:
    core, stream = stalling()
    assert sent(core) == WINDOW
    core.receive_data(total(3, WINDOW, WINDOW), NOW)
    assert stream.scheduled
    core.receive_data(total(3, WINDOW, 0), NOW)
    assert sent(core) == 0
    core.receive_data(total(3, WINDOW, 500), NOW)
    assert sent(core) == 500


def test_after_its_fin_such_a_peer_is_given_up() -> None:
    core, stream = stalling()
    assert sent(core) == WINDOW
    core.receive_data(total(3, WINDOW, WINDOW) + smux(1, 3), NOW)
    core.receive_data(total(3, WINDOW, 0), NOW)
    assert sent(core) == 0
    core.handle_timer(NOW + 6.9)
    assert stream.state != CLOSED
    core.handle_timer(NOW + 7.0)
    assert stream.reset_code == ErrorCode.WRITE_TIMEOUT


def test_credit_that_comes_in_time_begins_the_wait_anew() -> None:
    core, stream = stalling()
    assert sent(core) == WINDOW
    core.receive_data(smux(1, 3), NOW)
    core.receive_data(total(3, WINDOW, 400), NOW + 5)
    assert sent(core, NOW + 5) == 400
    core.handle_timer(NOW + 11.9)
    assert stream.state != CLOSED
    core.handle_timer(NOW + 20)
    assert stream.state == CLOSED


def test_a_stream_that_stalls_twice_in_one_moment_is_given_up_once() -> None:
    core, stream = stalling()
    assert sent(core) == WINDOW
    core.receive_data(smux(1, 3), NOW)
    core.receive_data(total(3, WINDOW, 400), NOW)
    assert sent(core) == 400
    core.handle_timer(NOW + 7)
    with pytest.raises(StreamReset, match="stall_timeout"):
        stream.write(b"more")
    assert core.stats().streams == 0
    assert core.reason is None


def test_credit_for_a_stream_that_is_not_known_is_passed_over() -> None:
    core = session("smux-v2", client=True)
    unopened = core.open()
    core.receive_data(smux(4, 99, struct.pack("<II", 1, 1)) + total(3, 0, 1), NOW)
    assert core.reason is None
    assert unopened.send_credit == WINDOW
