"""Settings of the tests against hostile peers, and of the long ones."""

from __future__ import annotations

import pytest

from ..asyncio.certificates import Tls
from ..asyncio.conftest import tls

__all__ = ["tls"]  # pytest looks for it here


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes minutes; runs only if asked for by -m slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow" in str(config.getoption("markexpr")):
        return
    skip = pytest.mark.skip(reason="runs only if asked for by -m slow")
    for item in items:
        if item.get_closest_marker("slow") is not None:
            item.add_marker(skip)


@pytest.fixture(params=["plain", "tls"])
def security(request: pytest.FixtureRequest, tls: Tls) -> Tls | None:
    """What a server and its clients use."""
    return tls if request.param == "tls" else None


@pytest.fixture
def anyio_backend() -> str:
    """asyncio's own loop; where it makes a difference, a module takes every one."""
    return "asyncio"
