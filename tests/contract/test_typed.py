"""Sessions whose streams have types."""

from __future__ import annotations

from typing import Any

import pytest

import muxado
from muxado import ErrorCode

from .conftest import Connect, Place
from .sides import SHORT
from .wires import PROPERTIES, needs


def typed(place: Place) -> dict[str, Any]:
    """Return the settings of sessions whose streams have types."""
    return {"typed": True} if PROPERTIES["types first"](place.rules) else {}


@pytest.mark.everywhere
@needs("types")
def test_types_arrive_before_the_data(place: Place, connect: Connect) -> None:
    client, server = connect(**typed(place))
    for kind in (None, 7, 0xFFFFFEFE):
        near = client.open(type=kind)
        near.write(b"data")
        far = server.accept()
        assert near.type == far.type == (kind or 0)
        assert far.read() == b"data"
        far.close()
        near.close()


@needs("types")
def test_a_type_is_32_bits_and_no_heartbeat(place: Place, connect: Connect) -> None:
    client, _ = connect(**typed(place))
    for wrong in (-1, 1 << 32, 0xFFFFFFFF):
        with pytest.raises(muxado.UsageError):
            client.open(type=wrong)


@needs("types first")
def test_a_stream_that_does_not_tell_its_type_is_reset(connect: Connect) -> None:
    client, server = connect(server={"typed": True, "type_timeout": SHORT})
    near = client.open()
    near.write(b"123")
    assert near.wait_reset() == ErrorCode.STREAM_CANCELLED
    other = client.open()
    other.write(b"1234")
    assert server.accept().type == 0x31323334


@needs("no types")
def test_streams_of_a_session_without_types_have_none(connect: Connect) -> None:
    client, server = connect()
    with pytest.raises(muxado.UsageError):
        client.open(type=1)
    near = client.open(eager=True)
    assert near.type is None
    assert server.accept().type is None
    near.close()
