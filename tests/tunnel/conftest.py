"""What the tests of the tunnel share."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.bounded import bound
from tests.fixtures import anyio_backend, no_tasks_left
from tests.patience import patience

from .commands import TIMEOUT, Commands, on_states

if TYPE_CHECKING:
    from muxado.tunnel import Server

__all__ = ["anyio_backend", "no_tasks_left", "pytest_itemcollected"]


def pytest_itemcollected(item: pytest.Item) -> None:
    bound(item, patience(15))


@pytest.fixture
def commands() -> Iterator[Commands]:
    with on_states() as commands:
        yield commands


@pytest.fixture
async def server(no_tasks_left: None, tmp_path: Path) -> AsyncIterator[Server]:
    from muxado.tunnel import Server

    async with Server(tmp_path / "server", "127.0.0.1", 0) as running:
        yield running


@pytest.fixture
def target() -> Iterator[int]:
    """The port of a server that answers at the end of what comes, in capitals."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    sock, _ = listening.accept()
                except OSError:
                    return
                with sock, suppress(ConnectionError):  # a caller that is cut
                    sock.settimeout(TIMEOUT)
                    data = b"".join(iter(lambda: sock.recv(65536), b""))  # noqa: B023
                    sock.sendall(data.upper())

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
