"""Settings of the tests against hostile peers, and of the long ones."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes minutes; runs only if asked for by -m slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow" in str(config.getoption("markexpr")):
        return
    skip = pytest.mark.skip(reason="runs only if asked for by -m slow")
    for item in items:
        if item.get_closest_marker("slow") is not None:
            item.add_marker(skip)


@pytest.fixture
def anyio_backend() -> str:
    """asyncio's own loop; which one there is makes no difference here."""
    return "asyncio"
