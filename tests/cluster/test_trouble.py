"""What is logged of an engine: each trouble once, its end, and seldom that it is slow."""

from __future__ import annotations

import pytest

from muxado.cluster.trouble import SLOW, Trouble


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged so far, and forget it."""
    found = [str(vars(record)["event"]) for record in caplog.records]
    caplog.clear()
    return found


def test_a_trouble_is_logged_when_it_changes_and_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trouble = Trouble("redis://engine")
    trouble.ends()
    assert events(caplog) == []
    for reason in ("refused", "refused", "no route"):
        trouble.begins(reason)
    assert [vars(record)["reason"] for record in caplog.records] == ["refused", "no route"]
    assert events(caplog) == ["directory_away"] * 2
    for _ in range(2):
        trouble.ends()
    assert events(caplog) == ["directory_back"]
    trouble.begins("refused")
    assert events(caplog) == ["directory_away"]


def test_a_slow_answer_is_logged_and_the_next_ones_are_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trouble = Trouble("redis://engine")
    trouble.took(SLOW / 2)
    assert events(caplog) == []
    for _ in range(5):
        trouble.took(SLOW)
    assert events(caplog) == ["directory_slow"]
