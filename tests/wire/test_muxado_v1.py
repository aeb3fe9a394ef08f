"""What the muxado v1 codec does beyond the golden frames: codes, the length of GOAWAY, bounds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from muxado.errors import ErrorCode, UsageError
from muxado.wire import FORMATS
from muxado.wire.codec import GO_AWAY, RESET
from muxado.wire.muxado_v1 import MAX_ID, MAX_LENGTH, PING, from_wire, to_wire

from ..frames import Frame, read_frames
from ..golden import vectors

WIRE = FORMATS["muxado-v1"]
encoder = WIRE.encoder


@pytest.mark.parametrize(
    "name",
    ["goaway-go-writer-empty-debug", "goaway-go-writer-session-close", "goaway-go-writer-max"],
)
def test_a_goaway_of_go_is_8_bytes_long_whatever_it_says(name: str) -> None:
    (vector,) = (vector for vector in vectors("muxado-v1") if vector.name == name)
    frame, after = read_frames([vector.wire + encoder.reset(3, 0)], WIRE)
    fields = vector.fields
    assert frame.kind == GO_AWAY
    assert frame.value == fields["last_stream_id"]
    assert frame.code == fields["error_code"]
    assert after == Frame(RESET, 3, code=0)


@pytest.mark.parametrize("final", [False, True])
def test_our_own_goaway_has_a_length_that_every_reader_takes_for_8(final: bool) -> None:
    frame = encoder.go_away(7, 0, b"words that have no place", final)
    assert frame.hex() == "00080006000000000000000700000000"


@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_has_a_number_that_go_writes_too(code: ErrorCode) -> None:
    assert 0 <= to_wire(code) < 8


@pytest.mark.parametrize("number", range(8))
def test_every_number_comes_back_as_it_was_sent(number: int) -> None:
    assert to_wire(from_wire(number)) == number


@pytest.mark.parametrize("number", [16, 403, 0xFFFFFFFF])
def test_a_programs_own_codes_travel_as_they_are(number: int) -> None:
    assert to_wire(number) == from_wire(number) == number


@pytest.mark.parametrize("number", [8, 9, 15, 255])
def test_a_number_without_a_meaning_gets_none_of_ours(number: int) -> None:
    assert from_wire(number) == ErrorCode.UNKNOWN


def test_the_ping_is_empty_data_on_the_id_that_no_stream_has() -> None:
    assert encoder.ping() == PING == encoder.data_header(1, 0, False, False)


@pytest.mark.parametrize(
    "call",
    [
        lambda: encoder.data_header(-1, 0, False, False),
        lambda: encoder.data_header(MAX_ID + 1, 0, False, False),
        lambda: encoder.data_header(3, MAX_LENGTH + 1, False, False),
        lambda: encoder.data_header(3, 0, True, False),
        lambda: encoder.open(3, -1, 0),
        lambda: encoder.open(3, 0, 1 << 31),
        lambda: encoder.open(MAX_ID + 1, 0, 0),
        lambda: encoder.reset(3, -1),
        lambda: encoder.credit(3, 0),
        lambda: encoder.credit(3, 1 << 31),
        lambda: encoder.go_away(-1, 0, b"", True),
        lambda: encoder.go_away(0, 1 << 32, b"", True),
    ],
)
def test_fields_out_of_range_are_usage_errors(call: Callable[[], bytes]) -> None:
    with pytest.raises(UsageError, match="must be from"):
        call()
