"""Every pairing of front ends across a real socket, plain and with TLS."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import pytest

import muxado
from muxado import Config
from tests.certificates import Tls

from .asyncio_side import AsyncioFrontEnd
from .sides import PATIENCE, FrontEnd, ListenerSide, Side, StreamSide
from .sync_side import SyncFrontEnd
from .trio_side import TrioFrontEnd

FRONT_ENDS: dict[str, Callable[[], FrontEnd]] = {
    "asyncio": AsyncioFrontEnd,
    "sync": SyncFrontEnd,
    "trio": TrioFrontEnd,
}
SCHEMES = ("plain", "tls")


class Ends(NamedTuple):
    """The two ends of a connection."""

    client: Side
    server: Side

    @contextmanager
    def stream(self, **options: Any) -> Iterator[tuple[StreamSide, StreamSide]]:
        """Open a stream and accept it; both ends are closed at the end of the block."""
        near = self.client.open(eager=True, **options)
        far = self.server.accept()
        yield near, far
        near.close()
        far.close()


class Place(NamedTuple):
    """Where a test runs: who dials, who listens, and with which contexts."""

    client: FrontEnd
    server: FrontEnd
    client_tls: ssl.SSLContext | None
    server_tls: ssl.SSLContext | None

    @contextmanager
    def connected(self, server: dict[str, Any] | None = None, **settings: Any) -> Iterator[Ends]:
        config = Config(**settings)
        server_config = config if server is None else Config(**server)
        with (
            self.server.listen(self.server_tls, server_config) as listener,
            self.client.connect(listener.port, self.client_tls, config) as client,
        ):
            ends = Ends(client, listener.accept())
            try:
                yield ends
            finally:
                for side in ends:
                    side.abort()
                    side.wait_closed()


def still_works(place: Place, listener: ListenerSide) -> None:
    """See that the listener goes on after a connection that failed."""
    with place.client.connect(listener.port, place.client_tls, Config()) as client:
        client.open().write(b"fine")
        while True:
            server = listener.accept()
            try:
                stream = server.accept()
            except muxado.SessionError:  # the one that failed, if its handshake was done
                continue
            break
        assert stream.read() == b"fine"
        client.abort()
        server.wait_closed()


Connect = Callable[..., Ends]


@pytest.fixture(scope="session")
def front_ends() -> Iterator[dict[str, FrontEnd]]:
    """The three front ends, running."""
    before = threading.active_count()
    with ExitStack() as stack:
        running = {name: kind() for name, kind in FRONT_ENDS.items()}
        for front_end in running.values():
            stack.enter_context(front_end.run())
        yield running
    for thread in threading.enumerate()[before:]:
        thread.join(PATIENCE)
        assert not thread.is_alive(), thread


@pytest.fixture(
    params=[
        (client, server, scheme)
        for scheme in SCHEMES
        for client in FRONT_ENDS
        for server in FRONT_ENDS
    ],
    ids="-".join,
)
def place(request: pytest.FixtureRequest, front_ends: dict[str, FrontEnd], tls: Tls) -> Place:
    client, server, scheme = request.param
    contexts = (tls.client, tls.server) if scheme == "tls" else (None, None)
    return Place(front_ends[client], front_ends[server], *contexts)


@pytest.fixture
def connect(place: Place) -> Iterator[Connect]:
    """Connects a client and a server.

    Its arguments are both ends' settings; `server` are the server's, if they differ.
    """
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(place.connected(**settings))


@pytest.fixture
def ends(connect: Connect) -> Ends:
    return connect()
