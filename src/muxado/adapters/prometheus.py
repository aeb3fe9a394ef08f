"""Metrics of this process's sessions for Prometheus, read when they are scraped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from ..core import SessionStats
from ..errors import ErrorCode
from ..extras import needs
from ..registry import Ended, Key, here
from ..snapshots import add_up

with needs("prometheus"):
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector as BaseCollector

__all__ = ["Collector"]

LABELS = ("name", "role")


class Collector(BaseCollector):
    """Tells `prometheus_client` of the sessions of this process.

    ::

        prometheus_client.REGISTRY.register(Collector())

    Nothing is counted for it meanwhile: each scrape reads what the sessions know anyway. Every
    metric has the labels `name`, the sessions' name, and `role`, "client" or "server"; sessions of
    the same name are added up, and what ended ones have counted stays. The page on watching lists
    the metrics.

    A name is a label: give sessions names of which there are not too many. Ended sessions are
    counted under 1000 names; those of further names are counted with the nameless.
    """

    def describe(self) -> Iterator[Metric]:
        """Return the metrics without values, so that registering it looks at no session."""
        return iter(_Families().all())

    def collect(self) -> Iterator[Metric]:
        """Return the metrics; called for each scrape, in whatever thread serves it."""
        families = _Families()
        stats: dict[Key, list[SessionStats]] = defaultdict(list)
        states: dict[Key, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        records, ended = here.look()
        for record in records:
            stats[record.key].append(record.core.stats())
            states[record.key][record.state] += 1
        for key, left in ended.items():
            stats[key].append(left.stats)
            families.add_ends(key, left)
        for key, each in stats.items():
            families.add(key, add_up(each), states[key])
        return iter(families.all())


class _Families:
    """The metrics of one scrape."""

    def __init__(self) -> None:
        self.sessions = _gauge("sessions", "Sessions that live", "state")
        self.ends = _counter("session_ends", "Sessions that have ended", "code", "by", "clean")
        self.streams = _gauge("streams", "Streams that are alive")
        self.opened = _counter("streams_opened", "Streams opened here or accepted", "direction")
        self.bytes = _counter("bytes", "Payload bytes of the streams", "direction")
        self.frames = _counter("frames", "Frames", "direction")
        self.resets = _counter("resets", "Streams that were reset", "direction", "code")
        self.refusals = _counter("refusals", "Streams of the peer that were refused", "code")
        self.stalls = _counter("stalls", "Times that a stream had data and no credit")
        self.unread = _gauge("unread_bytes", "Bytes received and not yet read")
        self.queued = _gauge("queued_bytes", "Bytes written and not yet sent")
        self.round_trip = _gauge(
            "round_trip_seconds", "The last measured round trip, the longest one of the sessions"
        )

    def all(self) -> list[Metric]:
        """Return all of them."""
        return list(vars(self).values())

    def add_ends(self, key: Key, ended: Ended) -> None:
        """Add how sessions of a name have ended."""
        for (code, by_peer, clean), count in ended.ends.items():
            by = "peer" if by_peer else "this side"
            self.ends.add_metric((*key, _name(code), by, "yes" if clean else "no"), count)

    def add(self, key: Key, stats: SessionStats, states: Mapping[str, int]) -> None:
        """Add the figures of a name."""
        for state, count in states.items():
            self.sessions.add_metric((*key, state), count)
        self.streams.add_metric(key, stats.streams)
        self.opened.add_metric((*key, "out"), stats.streams_opened)
        self.opened.add_metric((*key, "in"), stats.streams_accepted)
        self.bytes.add_metric((*key, "sent"), stats.bytes_sent)
        self.bytes.add_metric((*key, "received"), stats.bytes_received)
        self.frames.add_metric((*key, "sent"), stats.frames_sent)
        self.frames.add_metric((*key, "received"), stats.frames_received)
        for code, count in stats.resets_sent_by_code.items():
            self.resets.add_metric((*key, "sent", _name(code)), count)
        for code, count in stats.resets_received_by_code.items():
            self.resets.add_metric((*key, "received", _name(code)), count)
        for code, count in stats.refusals_by_code.items():
            self.refusals.add_metric((*key, _name(code)), count)
        self.stalls.add_metric(key, stats.stalls)
        self.unread.add_metric(key, stats.memory_held)
        self.queued.add_metric(key, stats.bytes_queued)
        self.round_trip.add_metric(key, stats.rtt)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"muxado_{name}", f"{text}.", labels=(*LABELS, *labels))


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"muxado_{name}", f"{text}.", labels=(*LABELS, *labels))


def _name(code: int) -> str:
    """Return what an error code is called, or its number."""
    try:
        return ErrorCode(code).name
    except ValueError:
        return str(code)
