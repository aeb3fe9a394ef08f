"""Pairings of front ends over WebSockets, in which each dials and listens, with TLS and without."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.certificates import Tls
from tests.contract.conftest import Place, connect, ends
from tests.contract.sides import PATIENCE, FrontEnd

from .sides import FRONT_ENDS

__all__ = ["connect", "ends"]

PAIRINGS = [
    ("sync", "trio", "wss"),
    ("trio", "sync", "ws"),
    ("asyncio", "sync", "wss"),
    ("trio", "asyncio", "wss"),
]


@pytest.fixture(scope="session")
def web_front_ends() -> Iterator[dict[str, FrontEnd]]:
    """The three front ends, running."""
    with ExitStack() as stack:
        running = {name: kind() for name, kind in FRONT_ENDS.items()}
        for front_end in running.values():
            stack.enter_context(front_end.run())
        yield running
    for thread in threading.enumerate():
        if thread.name.startswith("muxado"):
            thread.join(PATIENCE)
            assert not thread.is_alive(), thread


@pytest.fixture(params=PAIRINGS, ids="-".join)
def place(request: pytest.FixtureRequest, web_front_ends: dict[str, FrontEnd], tls: Tls) -> Place:
    client, server, scheme = request.param
    contexts = (tls.client, tls.server) if scheme == "wss" else (None, None)
    return Place(web_front_ends[client], web_front_ends[server], *contexts)
