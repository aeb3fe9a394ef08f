"""Settings of the tests against hostile peers, and of the long ones."""

from __future__ import annotations

import pytest

from ..certificates import Tls


@pytest.fixture(params=["plain", "tls"])
def security(request: pytest.FixtureRequest, tls: Tls) -> Tls | None:
    """What a server and its clients use."""
    return tls if request.param == "tls" else None


@pytest.fixture
def anyio_backend() -> str:
    """asyncio's own loop; where it makes a difference, a module takes every one."""
    return "asyncio"
