"""The metrics of a node."""

from __future__ import annotations

from pathlib import Path

import prometheus_client
import pytest

from muxado.cluster.prometheus import Collector
from tests.cluster.fleets import ask, fleet_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_each_figure_is_told(tmp_path: Path) -> None:
    registry = prometheus_client.CollectorRegistry()
    async with fleet_of(tmp_path, 1) as fleet, fleet.member("web-1", [0]):
        node = fleet.nodes[0]
        registry.register(Collector(node))
        await ask(await node.open("web-1"), b"x")

        def value(name: str) -> float | None:
            return registry.get_sample_value(f"muxado_cluster_{name}")

        assert value("registered") == value("claimed") == 1
        assert value("opened_here_total") == 1
        assert value("trouble") == value("draining") == value("waiting") == 0
        text = prometheus_client.generate_latest(registry).decode()
        assert text.count("# HELP") == text.count("# TYPE") >= 12
