"""Pings: the round trip, and whether the peer still lives.

Any inbound byte is life. Only after `interval` seconds of silence is the peer asked, and only
after `timeout` more without a byte is it given up (docs/protocol.md section 11). Those are
`Config.ping_interval` and `Config.ping_timeout`.
"""

from __future__ import annotations

from math import inf
from typing import Final

from ..errors import UsageError
from ..wire import NO_PINGS
from .ledger import Ledger
from .states import CLOSING

# How often the round trip is measured while data comes in: every so many round trips, within
# these bounds in seconds. A short one has to be met among the queues of a fast link, and a first
# one, on code that has never run, may be ten times too long.
SAMPLE_TRIPS: Final = 50.0
SHORTEST_SAMPLE_INTERVAL: Final = 0.01
SAMPLE_INTERVAL: Final = 1.0
# How long a minimum counts.
MINIMUM_WINDOW: Final = 10.0

# So many seconds of silence at most until a session that holds more than it needs counts as idle.
IDLE: Final = 15.0

# Seconds, while the peer has not told its wire: it can't be asked, so the timeout begins at once.
LEAST_INTERVAL: Final = 1e-9

# A timer later than this was held up by this process, not by the peer.
LATE: Final = 0.1


class Liveness:
    """The pings of one session: one is in flight at a time, calls that ask then share the next.

    Attributes:
        wanted: True if a ping should be sent at the next chance.
        with_traffic: True while that ping should only be sent together with something else.
        received_at: when bytes came last, or the session began.
        sent: how many pings have been sent.
        answered: the number of the last ping that was answered.
        rtt: the last round trip in seconds, 0 if none was measured.
        min_rtt: the smallest of the last 10 to 20 seconds, 0 if none was measured.
        supported: False if the wire has no pings, or the peer's streams make them impossible.
    """

    __slots__ = (
        "_again",
        "_asked",
        "_bucket_min",
        "_bucket_started",
        "_due",
        "_extended",
        "_idle",
        "_interval",
        "_last_bucket_min",
        "_ledger",
        "_sampled_at",
        "_sent_at",
        "_timeout",
        "answered",
        "min_rtt",
        "received_at",
        "rtt",
        "sent",
        "supported",
        "wanted",
        "with_traffic",
    )

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        config, rules, now = ledger.config, ledger.rules, ledger.now
        interval = config.ping_interval if rules.known else LEAST_INTERVAL
        timeout = config.ping_timeout
        supported = rules.pings != NO_PINGS
        # A peer that is never given up need not be asked either.
        watch = interval is not None and timeout is not None and timeout != inf
        self._interval = interval if interval is not None and watch else inf
        self._timeout = timeout if timeout is not None and watch else inf
        self._idle = self._interval  # seconds until the first step of a silence
        self.received_at: float = now
        self._due = 0.0  # when the next step of a silence is due; 0 before the first
        self._asked = False  # in this silence, if it has had its first step
        self._extended = False
        self._sent_at = -inf
        self._sampled_at = -inf
        self._again = False
        self._bucket_started = now
        self._bucket_min = inf
        self._last_bucket_min = inf
        self.wanted: bool = supported
        self.with_traffic: bool = supported
        self.sent: int = 0
        self.answered: int = 0
        self.rtt: float = 0.0
        self.min_rtt: float = 0.0
        self.supported: bool = supported

    def ping(self) -> int:
        """Ask for a ping on a program's behalf, and return its number for `pong`.

        Raises:
            UsageError: the wire has no pings, or the peer has opened the stream that they use.
            SessionError: the session is closing or has ended.
        """
        self._check()
        return self.request()

    def pong(self, number: int) -> bool:
        """Return whether a ping has been answered. Raises as `ping` if it never will be."""
        if self.answered >= number:
            return True
        self._check()
        return False

    def _check(self) -> None:
        ledger = self._ledger
        if ledger.state >= CLOSING:
            raise ledger.failure()
        if not self.supported:
            if ledger.rules.pings == NO_PINGS:
                raise UsageError(f"{ledger.rules.name} has no pings")
            raise UsageError("the peer uses stream 1 itself, so it can't be pinged")

    def request(self) -> int:
        """Ask for a ping; return its number: it is answered once `answered` reaches it."""
        self.with_traffic = False
        if self.sent > self.answered:
            self._again = True
        else:
            self.wanted = True
        return self.sent + 1

    def ping_sent(self, now: float) -> None:
        """Note that the wanted ping has been handed over."""
        self.wanted = self.with_traffic = False
        self.sent += 1
        self._sent_at = self._sampled_at = now
        if not self.supported:
            self.answered = self.sent  # it only tells the peer that this side lives

    def answer(self, now: float) -> bool:
        """Take a ping's answer; return False if no ping was sent."""
        if self.answered == self.sent:
            return False
        self.answered = self.sent
        self.rtt = now - self._sent_at
        # From here on, or the answer itself would call for the next on a slow link.
        self._sampled_at = now
        if now - self._bucket_started > MINIMUM_WINDOW:
            self._last_bucket_min = self._bucket_min
            self._bucket_min = inf
            self._bucket_started = now
        self._bucket_min = min(self._bucket_min, self.rtt)
        self.min_rtt = min(self._bucket_min, self._last_bucket_min)
        if self._again:
            self._again = False
            self.wanted = True
        return True

    def rebase(self, now: float) -> None:
        """Take the last round trip for the smallest one, whatever was measured before."""
        self._last_bucket_min = inf
        self._bucket_min = self.min_rtt = self.rtt
        self._bucket_started = now

    def heard(self, now: float) -> None:
        """Note that bytes came in."""
        self.received_at = now
        self._due = 0.0
        self._extended = False

    def sample(self, now: float) -> None:
        """Ask for a ping if the last one is old; called while data comes in."""
        interval = max(SHORTEST_SAMPLE_INTERVAL, SAMPLE_TRIPS * self.min_rtt)
        if now - self._sampled_at >= min(interval, SAMPLE_INTERVAL) and self.supported:
            self.request()

    def turn_off(self) -> None:
        """Ping no more: the peer has a stream where pings should go."""
        self.supported = self.wanted = self._again = False
        self._interval = self._idle = inf
        self._due = 0.0

    def next_deadline(self) -> float:
        """Return when `handle_timer` is due, inf for never."""
        return self._due or self.received_at + self._idle

    def watch_for_idleness(self) -> None:
        """Have the timer called early in the next silence, even without pings, to ask `idle`."""
        self._idle = min(self._interval, IDLE)

    def idle(self, now: float) -> bool:
        """Return whether nothing has come for a while."""
        return now >= self.received_at + self._idle

    def handle_timer(self, now: float) -> bool:
        """Do what is due; return True if the peer is to be given up."""
        due = self.next_deadline()
        if now < due:
            return False
        if not self._due:
            self._asked = False
            self._idle = self._interval
            due = self._due = self.received_at + self._interval
            if now < due:
                return False
        if not self._asked:
            self._asked = True
            self.request()
            self._due = now + self._timeout
            return False
        late = now - due
        if late > LATE and not self._extended:
            # This process slept; what the peer sent meanwhile may still wait to be read.
            self._extended = True
            self._due = now + min(late, self._timeout)
            return False
        return True


class Keepalive:
    """Tells when this side has been silent for so long that it must say something.

    It looks at how many frames were sent, twice in that time, so that no frame has to note when.

    Attributes:
        due: when `is_due` is to be asked.
    """

    __slots__ = ("_period", "_sent", "due")

    def __init__(self, seconds: float, now: float) -> None:
        self._period = seconds / 2
        self._sent = -1
        self.due: float = now + self._period

    def is_due(self, now: float, sent: int) -> bool:
        """Return whether nothing was sent since the last look; `sent` is the count of frames."""
        if now < self.due:
            return False
        silent = sent == self._sent
        self._sent = sent
        self.due = now + self._period
        return silent
