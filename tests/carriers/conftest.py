"""Every road, for tests against two real endpoints; the fixtures are those of asyncio's tests."""

from __future__ import annotations

import pytest

from tests.fixtures import (
    anyio_backend,
    new_pair,
    no_tasks_left,
    pytest_itemcollected,
    session_pair,
)
from tests.transports import Connect

from .roads import ROADS

__all__ = [
    "anyio_backend",
    "new_pair",
    "no_tasks_left",
    "pytest_itemcollected",
    "session_pair",
    "transport",
]


@pytest.fixture(params=ROADS)
def transport(request: pytest.FixtureRequest) -> Connect:
    connect: Connect = request.param
    return connect
