"""How long frames are by what a link carries. `test_long_links` has it on links."""

from __future__ import annotations

import pytest

from muxado.core.pace import (
    FAIR_DATA,
    FRAME_TIME,
    LONG_DATA,
    LONGEST_DATA,
    LONGEST_EPOCH,
    SHORTEST_EPOCH,
    Pace,
)

MOST = 1 << 24


def test_frames_begin_long_unless_the_wire_has_shorter_ones() -> None:
    assert Pace(MOST, 0.0).longest == LONG_DATA
    assert Pace(1000, 0.0).longest == 1000


@pytest.mark.parametrize(
    ("rate", "longest"),
    [
        (1e6, FAIR_DATA),
        (100e6, int(100e6 * FRAME_TIME)),
        (1e12, LONGEST_DATA),
    ],
)
def test_a_frame_is_what_the_link_carries_in_a_moment(rate: float, longest: int) -> None:
    pace = Pace(MOST, 0.0)
    pace.tick(1.0, int(rate))
    assert pace.longest == longest


def test_the_wires_longest_frame_bounds_fast_links_too() -> None:
    pace = Pace(0xFFFF, 0.0)
    pace.tick(1.0, 1 << 40)
    assert pace.longest == 0xFFFF


def test_a_moment_and_a_pause_tell_nothing() -> None:
    pace = Pace(MOST, 0.0)
    pace.tick(SHORTEST_EPOCH / 2, 1 << 40)
    assert pace.longest == LONG_DATA
    pace.tick(LONGEST_EPOCH + 1, 1 << 40)
    assert pace.longest == LONG_DATA
    pace.tick(LONGEST_EPOCH + 2, (1 << 40) + 1)  # from the pause on
    assert pace.longest == FAIR_DATA
