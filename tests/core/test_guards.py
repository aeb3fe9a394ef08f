"""The bounds of what a peer can make us hold or do, each by itself."""

from __future__ import annotations

from muxado.core.guards import (
    CHURN_LEAST,
    CHURN_WINDOW,
    MAX_RECENTLY_RESET,
    ChurnGuard,
    RecentlyReset,
)


def test_the_streams_that_were_reset_last_are_remembered() -> None:
    recent = RecentlyReset()
    for stream_id in range(MAX_RECENTLY_RESET + 2):
        recent.add(stream_id)
    assert 0 not in recent
    assert 1 not in recent
    assert 2 in recent
    assert MAX_RECENTLY_RESET + 1 in recent


def test_an_id_that_lives_again_or_was_never_there_is_discarded() -> None:
    recent = RecentlyReset()
    recent.add(3)
    recent.add(5)
    recent.discard(3)
    recent.discard(7)
    assert (3 in recent, 5 in recent) == (False, True)
    recent.clear()
    assert 5 not in recent


def test_so_many_streams_may_be_opened_and_reset_in_a_while_and_as_many_in_the_next() -> None:
    guard = ChurnGuard(0)
    for now in (100.0, 100.0 + CHURN_WINDOW + 0.1):
        assert not any(guard.too_many(now) for _ in range(CHURN_LEAST))
    assert guard.too_many(100.2 + CHURN_WINDOW)


def test_as_many_as_may_be_open_may_be_reset() -> None:
    guard = ChurnGuard(3 * CHURN_LEAST)
    assert not any(guard.too_many(100.0) for _ in range(3 * CHURN_LEAST))
    assert guard.too_many(100.0)
