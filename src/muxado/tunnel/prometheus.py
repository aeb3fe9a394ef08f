"""Metrics of a tunnel's server for Prometheus. Install ``muxado[prometheus]``."""

from __future__ import annotations

from collections.abc import Iterator

from ..adapters.prometheus import Collector as SessionCollector
from ..cluster.prometheus import Collector as NodeCollector
from ..extras import needs
from .server import Server

with needs("prometheus"):
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector as BaseCollector

__all__ = ["Collector", "metrics_of"]


class Collector(BaseCollector):
    """Tells `prometheus_client` of a server of the tunnel, as ``muxado_tunnel_...``.

    Args:
        server: the server; it is looked at in the thread of each scrape.
    """

    def __init__(self, server: Server) -> None:
        self._server = server

    def describe(self) -> Iterator[Metric]:
        """Return no metrics, so that registering it looks at nothing."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Return the metrics; called for each scrape."""
        clients = self._server.clients
        exposures = [each for client in clients for each in client.exposures.values()]
        for name, text, value in (
            ("clients", "Clients that are connected here.", len(clients)),
            ("services", "Services that they offer.", len(exposures)),
            ("connections", "Connections that run.", sum(each.connections for each in clients)),
            ("draining", "1 once the server is about to end.", int(self._server.draining)),
        ):
            yield GaugeMetricFamily(f"muxado_tunnel_{name}", text, value)
        denied = CounterMetricFamily("muxado_tunnel_denied", "What was denied.", labels=["reason"])
        for reason, count in self._server.denials.counts.items():
            denied.add_metric([reason], count)
        yield denied


def metrics_of(server: Server) -> bytes:
    """Return all metrics of a server and of this process's sessions, in Prometheus' text format."""
    registry = CollectorRegistry()
    for each in (Collector(server), NodeCollector(server.node), SessionCollector()):
        registry.register(each)
    return bytes(generate_latest(registry))
