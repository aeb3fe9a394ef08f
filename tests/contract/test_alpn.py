"""A server for any wire takes the one that TLS has chosen, in every front end."""

from __future__ import annotations

import pytest

from muxado.wire import FORMATS
from tests.certificates import Tls

from .conftest import FRONT_ENDS, Place
from .sides import FrontEnd

AUTO = {"wire": "auto"}


@pytest.fixture(params=FRONT_ENDS)
def front_end(request: pytest.FixtureRequest, front_ends: dict[str, FrontEnd]) -> FrontEnd:
    return front_ends[request.param]


def place(front_end: FrontEnd, tls: Tls, *protocols: str) -> Place:
    """Return where the server offers both of the wires' protocols, and the client others."""
    client, server = tls.new_client(*protocols), tls.new_server("muxado/2", "muxado/1")
    return Place(front_end, front_end, client, server)


@pytest.mark.parametrize("wire", ["muxado-v2", "muxado-v1"])
def test_what_tls_has_chosen_is_the_wire(front_end: FrontEnd, tls: Tls, wire: str) -> None:
    protocol = FORMATS[wire].rules.alpn
    with place(front_end, tls, protocol).connected(AUTO, wire=wire) as (client, server):
        assert server.config.wire == wire
        stream = server.open()  # the client has said nothing
        stream.write(b"from the server")
        assert client.accept().read() == b"from the server"
        client.open().write(b"from the client")
        assert server.accept().read() == b"from the client"


def test_without_a_choice_the_first_bytes_tell(front_end: FrontEnd, tls: Tls) -> None:
    with place(front_end, tls, "yamux").connected(AUTO, wire="yamux") as (client, server):
        client.open().write(b"hello")
        assert server.accept().read() == b"hello"
        assert server.config.wire == "yamux"


def test_a_client_that_breaks_its_word_is_told(front_end: FrontEnd, tls: Tls) -> None:
    with place(front_end, tls, "muxado/2").connected(AUTO, wire="yamux") as (client, server):
        client.open()  # which says so at once
        server.wait_closed()
        reason = server.close_reason
        assert reason is not None
        assert "yamux" in reason.message
