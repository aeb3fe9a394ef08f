"""TLS: what is verified, and how a refusal is told."""

from __future__ import annotations

import ssl
import threading

import pytest

import muxado
from muxado import Config
from tests.certificates import Tls

from .background import background
from .conftest import FRONT_ENDS, Place, still_works
from .sides import PATIENCE, FrontEnd, ListenerSide

PAIRS = [(client, server) for client in FRONT_ENDS for server in FRONT_ENDS]


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(
    request: pytest.FixtureRequest, front_ends: dict[str, FrontEnd]
) -> tuple[FrontEnd, FrontEnd]:
    client, server = request.param
    return front_ends[client], front_ends[server]


def test_an_unknown_authority_is_refused(pair: tuple[FrontEnd, FrontEnd], tls: Tls) -> None:
    place = Place(*pair, tls.client, tls.server)
    strangers = ssl.create_default_context()
    with place.server.listen(tls.server, Config()) as listener:
        with (
            pytest.raises(ssl.SSLCertVerificationError),
            place.client.connect(listener.port, strangers, Config()),
        ):
            raise AssertionError("no session")
        still_works(place, listener)


def test_a_client_without_a_certificate_is_refused(
    pair: tuple[FrontEnd, FrontEnd], tls: Tls
) -> None:
    place = Place(*pair, tls.mutual_client, tls.mutual_server)
    with place.server.listen(tls.mutual_server, Config()) as listener:
        # In TLS 1.3 the refusal comes after the client's own handshake is done.
        with (
            pytest.raises((ssl.SSLError, muxado.SessionError, ConnectionError)),
            place.client.connect(listener.port, tls.client, Config()) as client,
        ):
            client.ping()
        still_works(place, listener)


def test_another_protocol_is_refused(pair: tuple[FrontEnd, FrontEnd], tls: Tls) -> None:
    place = Place(*pair, tls.new_client("muxado/2"), tls.new_server("h2", "muxado/2"))
    undecided = tls.new_client("muxado/2", "h2")
    with place.server.listen(place.server_tls, Config()) as listener:
        with (
            pytest.raises(muxado.ProtocolError, match="'h2'"),
            place.client.connect(listener.port, undecided, Config()),
        ):
            raise AssertionError("no session")
        still_works(place, listener)


def test_a_peer_that_speaks_no_tls_does_not_affect_other_sessions(
    pair: tuple[FrontEnd, FrontEnd], tls: Tls
) -> None:
    place = Place(*pair, tls.client, tls.server)
    with place.server.listen(tls.server, Config()) as listener:
        with (
            place.client.connect(listener.port, None, Config()) as client,
            pytest.raises(muxado.SessionError),
        ):
            client.ping()
        still_works(place, listener)


def test_the_certificate_must_have_the_name(pair: tuple[FrontEnd, FrontEnd], tls: Tls) -> None:
    elsewhere = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.authority.issue_cert("elsewhere.example").configure_cert(elsewhere)
    client, server = pair
    with (
        server.listen(elsewhere, Config()) as listener,
        pytest.raises(ssl.SSLCertVerificationError),
        client.connect(listener.port, tls.client, Config()),
    ):
        raise AssertionError("no session")


def test_threads_may_wait_on_one_listener(pair: tuple[FrontEnd, FrontEnd], tls: Tls) -> None:
    place = Place(*pair, tls.client, tls.server)
    arrived = threading.Semaphore(0)

    def accept(listener: ListenerSide) -> None:
        listener.accept().abort()
        arrived.release()

    with place.server.listen(tls.server, Config()) as listener:
        with background(accept, listener), background(accept, listener):
            for _ in range(2):
                with place.client.connect(listener.port, tls.client, Config()) as client:
                    client.wait_closed()
        for _ in range(2):
            assert arrived.acquire(timeout=PATIENCE)
