"""Says in the log what was denied to whom, and lets no one fill the log or forge lines."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from ipaddress import ip_address
from time import monotonic

__all__ = ["Denials"]

logger: logging.Logger = logging.getLogger("muxado.tunnel")

MINUTE = 60.0
MOST_LINES = 10  # a minute, for one source
MOST_SOURCES = 1000  # that are told apart


class Denials:
    """Logs denials, a bounded number a minute for each source, with what others say escaped.

    Attributes:
        counts: how many there were, by reason.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._sources: OrderedDict[str, tuple[float, int]] = OrderedDict()  # since when, how many

    def tell(self, reason: str, source: str, text: str) -> None:
        """Log a denial.

        Args:
            reason: a word for the metrics: ``hello``, ``offer``, ``use``, ``source`` or ``limit``.
            source: the address that it is denied to, or a client's name.
            text: the line; what is in it of others is escaped here.
        """
        self.counts[reason] += 1
        key = _network(source)
        now = monotonic()
        since, count = self._sources.pop(key, (now, 0))
        if now - since >= MINUTE:
            if count > MOST_LINES:
                logger.warning("%s: %d more denials were not logged", key, count - MOST_LINES)
            since, count = now, 0
        self._sources[key] = since, count + 1
        if len(self._sources) > MOST_SOURCES:
            self._sources.popitem(last=False)
        if count < MOST_LINES:
            logger.warning("%s", escaped(text), extra={"event": "denied", "reason": reason})


def escaped(text: str) -> str:
    """Return a text on one line, without anything that a terminal obeys."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _network(source: str) -> str:
    """Return what stands for a source: an IPv6 address for all of its /64."""
    try:
        address = ip_address(source.partition("%")[0])
    except ValueError:
        return source[:80]
    return str(address) if address.version == 4 else f"{address.exploded[:19]}::/64"
