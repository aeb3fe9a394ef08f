"""Metrics of a node for Prometheus, read when they are scraped. Install ``muxado[prometheus]``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from ..extras import needs
from .node import Node
from .stats import NodeStats

with needs("prometheus"):
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector as BaseCollector

__all__ = ["Collector"]

COUNTERS = {
    "opened_here": "Streams opened to sessions of this server.",
    "opened_there": "Streams opened to sessions of other servers.",
    "passed_on": "Streams that other servers have opened to sessions of this one.",
    "refuted": "Routes that were wrong.",
    "look_ups": "Questions to the directory.",
}
GAUGES = {
    "registered": "Sessions that have a name here.",
    "claimed": "Names whose claim is in the directory.",
    "waiting": "Claims that wait for the directory's engine.",
    "peers": "Sessions with other servers.",
    "routes": "Names whose server is remembered.",
    "trouble": "1 while the directory can't be used.",
    "draining": "1 once this server is about to end.",
}


class Collector(BaseCollector):
    """Tells `prometheus_client` of a node: each figure of `NodeStats`, as ``muxado_cluster_...``.

    ::

        prometheus_client.REGISTRY.register(Collector(node))

    Args:
        node: the node.
    """

    def __init__(self, node: Node) -> None:
        self._node = node

    def describe(self) -> Iterator[Metric]:
        """Return the metrics without values."""
        return iter(_families(None))

    def collect(self) -> Iterator[Metric]:
        """Return the metrics; called for each scrape, in whatever thread serves it."""
        return iter(_families(self._node.stats()))


def _families(stats: NodeStats | None) -> list[Metric]:
    made: list[Metric] = []
    for field in fields(NodeStats):
        name = f"muxado_cluster_{field.name}"
        value = None if stats is None else float(bool(getattr(stats, field.name)))
        if stats is not None and field.name not in ("trouble", "draining"):
            value = float(getattr(stats, field.name))
        if field.name in COUNTERS:
            made.append(CounterMetricFamily(name, COUNTERS[field.name], value))
        else:
            made.append(GaugeMetricFamily(name, GAUGES[field.name], value))
    return made
