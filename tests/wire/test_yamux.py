"""What the yamux codec does beyond the golden frames: several flags at once, codes, bounds."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from muxado.errors import ErrorCode, UsageError
from muxado.wire import FORMATS
from muxado.wire.codec import ACCEPTED, BAD_FRAME, CREDIT, DATA, GO_AWAY, RESET

from ..core.pair import byte_by_byte
from ..frames import Frame, read_frames

WIRE = FORMATS["yamux"]
encoder = WIRE.encoder


def frame(kind: int, flags: int, stream_id: int, length: int, body: bytes = b"") -> bytes:
    return struct.pack(">HHII", kind, flags, stream_id, length) + body


def test_a_window_update_may_say_everything_at_once() -> None:
    wire = frame(1, 7, 3, 1000)
    wanted = [
        Frame(DATA, 3, syn=True),
        Frame(ACCEPTED, 3),
        Frame(CREDIT, 3, value=1000),
        Frame(DATA, 3, fin=True),
    ]
    assert read_frames([wire], WIRE) == read_frames(byte_by_byte(wire), WIRE) == wanted


def test_data_may_open_and_end_its_stream() -> None:
    wire = frame(0, 7, 3, 2, b"ab")
    wanted = [
        Frame(DATA, 3, syn=True, fin=True, length=2, body=bytearray(b"ab")),
        Frame(ACCEPTED, 3),
    ]
    assert read_frames([wire], WIRE) == read_frames(byte_by_byte(wire), WIRE) == wanted


def test_data_of_a_reset_is_stepped_over() -> None:
    wire = frame(0, 8, 3, 4, b"late") + frame(1, 8, 5, 0)
    wanted = [Frame(RESET, 3, code=7), Frame(RESET, 5, code=7)]
    assert read_frames([wire], WIRE) == read_frames(byte_by_byte(wire), WIRE) == wanted


def test_a_window_update_of_nothing_says_nothing() -> None:
    assert read_frames([frame(1, 0, 3, 0) + frame(1, 0xFFF0, 3, 0)], WIRE) == []


@pytest.mark.parametrize("kind", [0, 1])
def test_no_stream_has_the_id_0(kind: int) -> None:
    bad = frame(kind, 1, 0, 0)
    wanted = [Frame(BAD_FRAME, 0, code=ErrorCode.PROTOCOL_ERROR, text=b"stream id 0")]
    assert read_frames([bad], WIRE) == read_frames(byte_by_byte(bad), WIRE) == wanted


@pytest.mark.parametrize(
    ("code", "number"),
    [
        (ErrorCode.NO_ERROR, 0),
        (ErrorCode.PROTOCOL_ERROR, 1),
        (ErrorCode.FRAME_SIZE_ERROR, 1),
        (ErrorCode.INTERNAL_ERROR, 2),
        (ErrorCode.ENHANCE_YOUR_CALM, 2),
        (403, 2),
    ],
)
def test_a_goaway_says_whose_fault_it_was(code: int, number: int) -> None:
    wire = encoder.go_away(7, code, b"words that have no place", final=True)
    assert read_frames([wire], WIRE) == [Frame(GO_AWAY, 0, value=0xFFFFFFFF, code=number)]


@pytest.mark.parametrize(
    "call",
    [
        lambda: encoder.data_header(0, 0, False, False),
        lambda: encoder.data_header(1 << 32, 0, False, False),
        lambda: encoder.data_header(3, 1 << 31, False, False),
        lambda: encoder.data_header(3, 0, True, False),
        lambda: encoder.data_header(3, 1, False, True),  # Go would lose the byte
        lambda: encoder.open(0, 0, 0),
        lambda: encoder.accept(0),
        lambda: encoder.reset(0, 0),
        lambda: encoder.credit(0, 1),
        lambda: encoder.credit(3, 0),
        lambda: encoder.credit(3, 1 << 31),
    ],
)
def test_fields_out_of_range_are_usage_errors(call: Callable[[], bytes]) -> None:
    with pytest.raises(UsageError, match="must be from"):
        call()
