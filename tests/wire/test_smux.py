"""What the smux codec does beyond the golden frames: modular totals, bounds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from muxado.errors import UsageError
from muxado.wire import FORMATS
from muxado.wire.codec import DATA, WINDOW

from ..frames import Frame, read_frames

WIRE = FORMATS["smux-v2"]
encoder = WIRE.encoder


def test_totals_wrap_at_32_bits() -> None:
    wire = encoder.window(3, (5 << 32) + 7, 65536)
    assert read_frames([wire], WIRE) == [Frame(WINDOW, 3, value=7, window=65536)]


def test_a_reset_is_no_more_than_an_end() -> None:
    assert encoder.reset(3, 403) == encoder.data_header(3, 0, False, True)


def test_what_says_nothing_is_stepped_over() -> None:
    nothing = encoder.ping() + encoder.data_header(3, 0, False, False)
    end = encoder.data_header(3, 0, False, True)
    assert read_frames([nothing + end], WIRE) == [Frame(DATA, 3, fin=True)]


@pytest.mark.parametrize(
    "call",
    [
        lambda: encoder.data_header(-1, 0, False, False),
        lambda: encoder.data_header(1 << 32, 0, False, False),
        lambda: encoder.data_header(3, 1 << 16, False, False),
        lambda: encoder.data_header(3, 0, True, False),
        lambda: encoder.data_header(3, 1, False, True),
        lambda: encoder.open(-1, 0, 0),
        lambda: encoder.reset(1 << 32, 0),
        lambda: encoder.window(3, 0, 1 << 31),
    ],
)
def test_fields_out_of_range_are_usage_errors(call: Callable[[], bytes]) -> None:
    with pytest.raises(UsageError, match="must be from"):
        call()
