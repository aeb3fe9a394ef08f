"""How the figures of many sessions are added up."""

from __future__ import annotations

from dataclasses import fields, replace

from muxado import SessionStats
from muxado.errors import ErrorCode
from muxado.snapshots import MOST_CODES, NOTHING, add_up, only_counters


def stats(number: int) -> SessionStats:
    """Return figures that are all this number, and one code that came so often."""
    return SessionStats(
        **{  # type: ignore[arg-type]
            field.name: {403: number} if field.name.endswith("_by_code") else number
            for field in fields(SessionStats)
        }
    )


def test_figures_are_added_and_of_round_trips_the_longest_is_taken() -> None:
    total = add_up([stats(2), stats(5), stats(3)])
    assert total == replace(stats(10), rtt=5, min_rtt=5)


def test_nothing_adds_up_to_nothing() -> None:
    assert add_up([]) == NOTHING
    assert add_up([NOTHING, stats(4)]) == stats(4)


def test_what_an_ended_session_leaves_are_its_counters() -> None:
    left = only_counters(stats(7))
    gauges = {"streams", "rtt", "min_rtt", "memory_held", "bytes_queued"}
    for field in fields(SessionStats):
        value = getattr(left, field.name)
        if field.name in gauges:
            assert value == 0, field.name
        else:
            assert value == getattr(stats(7), field.name), field.name


def test_the_codes_of_many_peers_do_not_make_a_sum_grow() -> None:
    many = [
        replace(NOTHING, resets_received=1, resets_received_by_code={code: 1})
        for code in range(1000, 1000 + MOST_CODES + 9)
    ]
    total = add_up(many)
    assert len(total.resets_received_by_code) == MOST_CODES + 1
    assert total.resets_received_by_code[ErrorCode.UNKNOWN] == 9
    assert sum(total.resets_received_by_code.values()) == total.resets_received
    assert NOTHING.resets_received_by_code == {}
