"""The RSTs that wait to be sent: one for a stream, in order, and how many are too many."""

from __future__ import annotations

from muxado.config import Config
from muxado.core import CLOSING, Ledger
from muxado.core.resets import MAX_ANSWERS, PendingResets
from muxado.wire import MUXADO_V2


def pending(streams: int = 100) -> PendingResets:
    config = Config(max_incoming_streams=streams)
    return PendingResets(Ledger(False, config, MUXADO_V2.rules, 0.0))


def full(resets: PendingResets) -> bool:
    return resets.full


def test_a_stream_has_one_that_waits_and_the_last_code_counts() -> None:
    resets = pending()
    resets.ask(3, 6, local=False)
    resets.ask(5, 6, local=False)
    resets.provoke(3, 5)
    assert resets.take(10) == [(3, 5), (5, 6)]
    assert resets.take(10) == []
    assert resets.counts.total == 3


def test_the_oldest_leave_first() -> None:
    resets = pending()
    for stream_id in range(3, 13, 2):
        resets.provoke(stream_id, 4)
    assert resets.take(2) == [(3, 4), (5, 4)]
    assert resets.take(0) == []
    assert resets.take(9) == [(7, 4), (9, 4), (11, 4)]


def test_what_comes_late_for_a_stream_that_was_reset_is_not_answered() -> None:
    resets = pending()
    resets.ask(3, 6, local=True)
    resets.take(1)
    resets.provoke_for_unknown(3)
    resets.provoke_for_unknown(5)
    resets.provoke_for_unknown(5)
    assert [stream_id for stream_id, _ in resets.take(9)] == [5]


def test_the_peer_may_provoke_so_many_and_they_are_no_more_too_many_when_some_have_left() -> None:
    resets = pending()
    for stream_id in range(1, 2 * MAX_ANSWERS + 1, 2):
        resets.provoke(stream_id, 4)
    assert not full(resets)
    resets.provoke(2 * MAX_ANSWERS + 1, 4)
    assert full(resets)
    resets.take(1)
    assert not full(resets)


def test_the_application_may_reset_as_many_more_as_may_be_open() -> None:
    resets = pending(streams=50)
    for stream_id in range(MAX_ANSWERS + 50):
        resets.ask(stream_id, 6, local=False)
    for stream_id in range(100_000, 100_100):  # its own streams no peer can make it open
        resets.ask(stream_id, 6, local=True)
    assert not resets.too_many_asked()
    resets.ask(99_999, 6, local=False)
    assert resets.too_many_asked()
    assert full(resets)
    resets.clear()
    assert not full(resets)
    assert not resets.too_many_asked()


def test_a_session_that_closes_stops_answering_instead_of_giving_its_peer_up() -> None:
    ledger = Ledger(False, Config(), MUXADO_V2.rules, 0.0)
    resets = PendingResets(ledger)
    ledger.state = CLOSING
    for stream_id in range(3 * MAX_ANSWERS):
        resets.provoke(stream_id, 4)
        resets.provoke_for_unknown(100_000 + stream_id)
    assert len(resets.waiting) == MAX_ANSWERS
    assert not full(resets)
