"""The formats by the names that `Config.wire` and TLS know."""

from __future__ import annotations

import pytest

from muxado.wire import FORMATS, name_of


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_found_by_its_name_and_tells_it(name: str) -> None:
    wire = FORMATS[name]
    assert name_of(wire) == name
    assert wire.rules.name.replace(" ", "-") == name
    assert wire.rules.known
    assert type(wire.new_decoder()) is type(wire.new_decoder())


def test_names_in_tls_are_told_apart() -> None:
    names = [wire.rules.alpn for wire in FORMATS.values() if wire.rules.alpn]
    assert len(names) == len(set(names))
