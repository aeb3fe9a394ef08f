"""What holds for every WebSocket that carries a session: origins, subprotocols, sizes."""

from __future__ import annotations

import pytest

from muxado import Config, UsageError
from muxado.carriers._rules import (
    MESSAGE_SIZE,
    allows,
    check_origins,
    choose,
    pieces,
    subprotocols,
    wire_of,
)
from muxado.wire import FORMATS


@pytest.mark.parametrize("origins", ["https://a", None, 7, [b"https://a"], ["https://a", None]])
def test_origins_are_a_list_of_strings(origins: object) -> None:
    with pytest.raises(UsageError, match="list of strings"):
        check_origins(origins)


def test_only_a_page_of_a_known_origin_may_connect_and_what_is_no_browser() -> None:
    origins = check_origins(iter(["https://a", "https://b"]))
    assert allows(origins, "https://b")
    assert not allows(origins, "https://c")
    assert not allows((), "https://a")
    assert allows((), None)


@pytest.mark.parametrize("wire", FORMATS)
def test_a_subprotocol_stands_for_each_wire(wire: str) -> None:
    (subprotocol,) = subprotocols(Config(wire=wire))
    assert wire_of(subprotocol) == wire
    assert subprotocol in subprotocols(Config(wire="auto"))


def test_other_subprotocols_stand_for_none() -> None:
    assert wire_of("graphql-ws") is None
    assert wire_of(None) is None
    assert subprotocols(None) == subprotocols(Config())


def test_the_clients_first_choice_that_is_known_is_taken() -> None:
    known = ("a", "b")
    assert choose(["x", " b ", "a"], known) == (True, "b")
    assert choose(["x"], known) == (False, None)
    assert choose([], known) == (True, None)
    assert choose(["", " "], known) == (True, None)


@pytest.mark.parametrize("size", [0, 1, MESSAGE_SIZE, MESSAGE_SIZE + 1, 3 * MESSAGE_SIZE])
def test_messages_are_no_longer_than_so_many_bytes(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    parts = list(pieces(data))
    assert b"".join(parts) == data
    assert all(len(part) <= MESSAGE_SIZE for part in parts)
    assert len(parts) == max(1, -(-size // MESSAGE_SIZE))
