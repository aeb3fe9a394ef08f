"""Counts by error code, which a peer can't make grow without bound."""

from __future__ import annotations

from typing import Final

from ..errors import ErrorCode

# Codes that are told apart: more than have a meaning, since programs choose some of their own.
MOST_CODES: Final = 64


class CodeCounts:
    """How often each code has come.

    Attributes:
        total: how often any has.
        by_code: how often each; a code that comes when `MOST_CODES` others have is counted as
            UNKNOWN.
    """

    __slots__ = ("by_code", "total")

    def __init__(self) -> None:
        self.total: int = 0
        self.by_code: dict[int, int] = {}

    def count(self, code: int) -> None:
        """Count a code once more."""
        code = int(code)  # and no member of `ErrorCode`
        self.total += 1
        counts = self.by_code
        if code not in counts and len(counts) >= MOST_CODES:
            code = int(ErrorCode.UNKNOWN)
        counts[code] = counts.get(code, 0) + 1
