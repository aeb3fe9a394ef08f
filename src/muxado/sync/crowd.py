"""The threads that one read has woken: they go on one after the other, and the last one sends.

When a read concerns many threads, waking all of them at once makes them fight for the interpreter,
and for the session's lock while one of them sends: up to 20 changes of threads a request were
counted. So each thread wakes the next one when it goes on itself, and sending is left to the last
of them, in one write for all. A thread that computes, or waits for something else, must not hold
up the others: the I/O thread looks again after `GATHER_TIME`, and for as long as they get on.
"""

from __future__ import annotations

from collections import deque

from .locks import Waiter

# Seconds that what is to be sent may wait for what the others will add.
GATHER_TIME = 0.0002


class Crowd:
    """The threads of one session that go on together.

    Attributes:
        put_off: True once a thread has left its sending to the others.
    """

    __slots__ = ("_awake", "_waking", "put_off")

    def __init__(self) -> None:
        self._waking: deque[Member] = deque()
        self._awake: set[Member] = set()
        self.put_off: bool = False

    def add(self, member: Member) -> None:
        """Have a thread woken after those that were added before."""
        self._waking.append(member)

    def wake_next(self) -> None:
        """Wake the next one, if there is one."""
        try:
            member = self._waking.popleft()
        except IndexError:
            return
        self._awake.add(member)
        member.wake()

    def leave(self, member: Member) -> None:
        """Take note that a thread waits again, or has ended."""
        self._awake.discard(member)

    def gathers(self) -> bool:
        """Return whether another thread will go on, and can do the sending."""
        return len(self._awake) > 1 or len(self._waking) > 0

    def look(self) -> None:
        """Go on without those that have said nothing since the last look; the I/O thread's."""
        if not self.put_off:
            self._awake.clear()
            self.wake_next()
        self.put_off = False


class Member(Waiter):
    """Lets a thread wait as one of a crowd."""

    __slots__ = ("_crowd",)

    def __init__(self, crowd: Crowd) -> None:
        super().__init__()
        self._crowd = crowd

    def wait(self, deadline: float | None) -> bool:
        self._crowd.leave(self)
        woken = super().wait(deadline)
        self._crowd.wake_next()
        return woken
