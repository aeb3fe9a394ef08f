"""The subprotocol chooses the wire of a server that takes any, in every front end."""

from __future__ import annotations

import pytest

from muxado import Config
from tests.contract.sides import FrontEnd

from .sides import FRONT_ENDS


@pytest.mark.parametrize("wire", ["muxado-v2", "muxado-v1", "yamux", "smux-v2"])
@pytest.mark.parametrize("name", FRONT_ENDS)
def test_a_server_speaks_first_on_the_wire_of_the_subprotocol(
    name: str, wire: str, web_front_ends: dict[str, FrontEnd]
) -> None:
    """The client says nothing by which its wire could be told."""
    front_end = web_front_ends[name]
    with (
        front_end.listen(None, Config(wire="auto")) as listener,
        front_end.connect(listener.port, None, Config(wire=wire)) as client,
    ):
        server = listener.accept()
        near = server.open(eager=True)
        near.write(b"hello")
        assert client.accept().read() == b"hello"
