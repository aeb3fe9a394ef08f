"""All of it, on each loop."""

from tests.fixtures import (
    anyio_backend,
    new_pair,
    no_tasks_left,
    pytest_itemcollected,
    session_pair,
    transport,
)

__all__ = [
    "anyio_backend",
    "new_pair",
    "no_tasks_left",
    "pytest_itemcollected",
    "session_pair",
    "transport",
]
