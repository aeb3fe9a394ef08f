"""Pairs of sessions for the libraries under test; every test and fixture ends in bounded time."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import pytest
import trustme

import muxado
import muxado.sync
from tests.bounded import LOOPS, bound
from tests.patience import patience

PATIENCE = patience(10)


def pytest_itemcollected(item: pytest.Item) -> None:
    bound(item, PATIENCE)


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


class Ends(NamedTuple):
    """The two ends of a connection: who serves on its streams, and who calls."""

    serving: muxado.Session
    calling: muxado.Session


class SyncEnds(NamedTuple):
    """The same for threads."""

    serving: muxado.sync.Session
    calling: muxado.sync.Session


class Tls(NamedTuple):
    """Contexts with a certificate for `service.internal`, and the file of its authority."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    authority: str


@pytest.fixture(params=["dialled", "accepted"])
def way(request: pytest.FixtureRequest) -> str:
    """Whether the side that serves has dialled the session (as behind NAT), or accepted it."""
    value: str = request.param
    return value


@pytest.fixture
async def ends(way: str, anyio_backend: object) -> AsyncIterator[Ends]:
    async with asyncio.timeout(PATIENCE), muxado.listen("127.0.0.1", 0) as listener:
        host, port = listener.addresses[0]
        async with muxado.connect(host, port) as near, await listener.accept() as far:
            yield Ends(near, far) if way == "dialled" else Ends(far, near)


@pytest.fixture
def sync_ends(way: str) -> Iterator[SyncEnds]:
    with muxado.sync.listen("127.0.0.1", 0) as listener:
        host, port = listener.addresses[0]
        with muxado.sync.connect(host, port) as near, listener.accept(PATIENCE) as far:
            yield SyncEnds(near, far) if way == "dialled" else SyncEnds(far, near)


@pytest.fixture
def tcp_socket() -> Iterator[socket.socket]:
    """A listening socket, for the service that a tunnel leads to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("service.internal").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    path = tmp_path_factory.mktemp("authority") / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return Tls(server, client, str(path))
