"""How long the frames of a stream may be that has the session to itself.

A long frame costs less for each byte. But once it is on its way, whatever another stream has to
say waits until it is through, and on a slow link that is long: 64 KiB take 26 ms at 20 Mbit/s. So a
frame is as long as what the link has lately carried in `FRAME_TIME`.

What the link carries is measured by what leaves between two of the pings that measure the round
trip, which a busy session sends every second at least. The transport's buffers can't feign a fast
link for so long: a peer's first windows hold 512 KiB together.
"""

from __future__ import annotations

from typing import Final

# The longest DATA payload while other streams wait: what a small message waits behind. A stream
# alone has no shorter ones.
FAIR_DATA: Final = 16 * 1024
# The longest one of a stream alone, before anything was measured, and on the fastest links.
LONG_DATA: Final = 64 * 1024
LONGEST_DATA: Final = 256 * 1024

FRAME_TIME: Final = 0.0005  # seconds
# Seconds that are measured together. A longer time has a pause in it, which says nothing.
SHORTEST_EPOCH: Final = 0.05
LONGEST_EPOCH: Final = 4.0


class Pace:
    """Measures how much leaves, and says how long frames may be.

    Attributes:
        longest: bytes of payload, in a frame of a stream that has the session to itself.
    """

    __slots__ = ("_most", "_sent", "_started", "longest")

    def __init__(self, most: int, now: float) -> None:
        """Begin with `LONG_DATA`.

        Args:
            most: what a frame of the wire may hold.
            now: the time.
        """
        self._most: int = min(LONGEST_DATA, most)
        self._started = now
        self._sent = 0
        self.longest: int = min(LONG_DATA, most)

    def tick(self, now: float, sent: int) -> None:
        """Look at what has left; called now and then while the session is in use.

        Args:
            now: the time, in seconds.
            sent: bytes of payload that have left in all.
        """
        elapsed = now - self._started
        if elapsed < SHORTEST_EPOCH:
            return
        if elapsed < LONGEST_EPOCH:
            length = int((sent - self._sent) / elapsed * FRAME_TIME)
            self.longest = min(max(length, FAIR_DATA), self._most)
        self._started = now
        self._sent = sent
