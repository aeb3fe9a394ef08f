"""Counts by error code: no peer can make them grow without bound."""

from __future__ import annotations

from muxado.core.tallies import MOST_CODES, CodeCounts
from muxado.errors import ErrorCode


def test_each_code_is_counted_as_a_plain_number() -> None:
    counts = CodeCounts()
    for code in (ErrorCode.STREAM_REFUSED, int(ErrorCode.STREAM_REFUSED), 403):
        counts.count(code)
    assert counts.by_code == {int(ErrorCode.STREAM_REFUSED): 2, 403: 1}
    assert all(type(code) is int for code in counts.by_code)
    assert counts.total == 3


def test_codes_beyond_the_first_ones_are_counted_together() -> None:
    counts = CodeCounts()
    for code in range(1000, 1000 + MOST_CODES + 5):
        counts.count(code)
    counts.count(1000)
    assert len(counts.by_code) == MOST_CODES + 1
    assert counts.by_code[ErrorCode.UNKNOWN] == 5
    assert counts.by_code[1000] == 2
    assert counts.total == MOST_CODES + 6
