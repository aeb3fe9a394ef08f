"""Every pairing of front ends across a real socket, plain and with TLS."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from time import monotonic
from typing import Any, NamedTuple

import pytest

import muxado
from muxado import Config
from muxado.wire import FORMATS, NO_PINGS, Rules
from tests.certificates import Tls

from .asyncio_side import AsyncioFrontEnd
from .sides import PATIENCE, FrontEnd, ListenerSide, Side, StreamSide
from .sync_side import SyncFrontEnd
from .trio_side import TrioFrontEnd
from .wires import DEFAULT, left_out, missing

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

    def settle(self) -> None:
        """Wait until each side has taken in what the other has sent, also by its threads."""
        if self.client.rules.pings != NO_PINGS:
            self.client.ping()
            return
        deadline = monotonic() + PATIENCE
        for here, there in ((self.client, self.server), (self.server, self.client)):
            sent = here.stats().frames_sent
            while there.stats().frames_received < sent:
                assert monotonic() < deadline


class Place(NamedTuple):
    """Where a test runs: who dials, who listens, and with which contexts."""

    client: FrontEnd
    server: FrontEnd
    client_tls: ssl.SSLContext | None
    server_tls: ssl.SSLContext | None
    wire: str = DEFAULT

    @contextmanager
    def connected(self, server: dict[str, Any] | None = None, **settings: Any) -> Iterator[Ends]:
        config = self.config(**settings)
        server_config = config if server is None else self.config(**server)
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

    @property
    def rules(self) -> Rules:
        return FORMATS[self.wire].rules

    def config(self, **settings: Any) -> Config:
        """Return the settings of a session on the wire of this place."""
        settings.setdefault("wire", self.wire)
        return Config(**settings)

    def connected_with_windows(self, size: int, **settings: Any) -> AbstractContextManager[Ends]:
        """Connect with windows of that size, or the smallest larger ones that the wire has."""
        rules = self.rules
        if rules.agreed_window:
            settings["initial_window"] = size
        settings["max_window"] = max(size, 0 if rules.agreed_window else rules.first_window)
        return self.connected(**settings)


def still_works(place: Place, listener: ListenerSide) -> None:
    """See that the listener goes on after a connection that failed."""
    with place.client.connect(listener.port, place.client_tls, place.config()) as client:
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


# Who dials, who listens, how, and on which wire. What a front end does is the same on all wires, so
# each of the others runs on one pairing; see `wires.needs` and `everywhere`.
PAIRINGS = [
    (client, server, scheme, DEFAULT)
    for scheme in SCHEMES
    for client in FRONT_ENDS
    for server in FRONT_ENDS
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "place" not in metafunc.fixturenames:
        return
    marks = list(metafunc.definition.iter_markers("needs"))
    everywhere = metafunc.definition.get_closest_marker("everywhere") is not None
    places: list[Any] = [pytest.param(at, id="-".join(at[:3])) for at in PAIRINGS]
    for wire in FORMATS:
        if wire == DEFAULT:
            continue
        lacks = missing(wire, marks)
        skip = [pytest.mark.skip(reason=left_out(wire, lacks))] if lacks else []
        for name in FRONT_ENDS if everywhere and not lacks else ("asyncio",):
            at = (name, name, "plain", wire)
            places.append(pytest.param(at, id="-".join(at), marks=skip))
    metafunc.parametrize("place", places, indirect=True)


@pytest.fixture
def place(request: pytest.FixtureRequest, front_ends: dict[str, FrontEnd], tls: Tls) -> Place:
    client, server, scheme, wire = request.param
    client_tls, server_tls = (tls.client, tls.server) if scheme == "tls" else (None, None)
    return Place(front_ends[client], front_ends[server], client_tls, server_tls, wire)


@pytest.fixture
def connect(place: Place) -> Iterator[Connect]:
    """Connects a client and a server.

    Its arguments are both ends' settings; `server` are the server's, if they differ.
    """
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(place.connected(**settings))


@pytest.fixture
def connect_with_windows(place: Place) -> Iterator[Connect]:
    """Does the same, given the size of the windows first."""
    with ExitStack() as stack:
        yield lambda size, **settings: stack.enter_context(
            place.connected_with_windows(size, **settings)
        )


@pytest.fixture
def ends(connect: Connect) -> Ends:
    return connect()
