"""What the tests of the tunnel share."""

from __future__ import annotations

import pytest

from tests.bounded import bound
from tests.fixtures import anyio_backend, no_tasks_left
from tests.patience import patience

__all__ = ["anyio_backend", "no_tasks_left", "pytest_itemcollected"]


def pytest_itemcollected(item: pytest.Item) -> None:
    bound(item, patience(15))
