"""Frames that are out of place on the other wires, and a hello that looks like DATA."""

from __future__ import annotations

import pytest

from muxado.core import ANSWERED
from muxado.errors import ProtocolError

from .peer import Bench
from .wires import NOW, said, session, yamux


def test_an_answer_to_a_ping_that_was_not_sent_is_passed_over() -> None:
    core = session("yamux")
    core.take_events()
    core.receive_data(yamux(2, 2, 0, 7), NOW)
    assert not core.take_events() & ANSWERED
    assert core.reason is None
    number = core.liveness.ping()
    said(core)
    core.receive_data(yamux(2, 2, 0, 0), NOW)
    assert core.take_events() & ANSWERED
    assert core.liveness.pong(number)


def test_an_acknowledgement_of_what_was_not_opened_here_is_passed_over() -> None:
    core = session("yamux", client=True)
    unsent = core.open()
    core.receive_data(yamux(1, 1, 2) + yamux(1, 2, 2) + yamux(1, 2, 77) + yamux(1, 2, 1), NOW)
    assert core.reason is None
    assert not unsent.acknowledged


def test_the_hello_of_tls_is_named_though_it_looks_like_a_long_frame() -> None:
    """Over 4 KiB its length has the look of a DATA frame's flags."""
    bench = Bench()
    hello = b"\x16\x03\x01\x10\x20\x01\x00\x10\x1c\x03\x03"
    bench.hear(hello + bytes(4096))
    with pytest.raises(ProtocolError, match="TLS"):
        raise bench.core.ledger.failure()
    assert bench.flush() == b""


def test_other_data_that_is_too_long_is_answered_though_it_comes_first() -> None:
    bench = Bench()
    bench.hear(b"\x77\x03\x01\x10\x00\x00\x00\x05" + bytes(100))
    assert bench.said() == ["RST 5 4"]
    assert bench.core.reason is None
