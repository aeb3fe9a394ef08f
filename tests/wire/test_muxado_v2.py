"""The muxado v2 codec against frames that Go wrote, read or refused, however they are cut."""

from __future__ import annotations

from collections.abc import Callable
from operator import add

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muxado.errors import ErrorCode, UsageError
from muxado.wire import MUXADO_V2, Encoder
from muxado.wire.codec import BAD_FRAME, CREDIT, DATA, GO_AWAY, NEED_MORE, READ_SIZE, RESET
from muxado.wire.muxado_v2 import GO_AWAY_PAD, MAX_LENGTH, PING

from ..core.pair import byte_by_byte, pieces
from ..frames import Frame, FrameReader, cut_at, read_frames
from ..golden import Vector, vectors

ALL = vectors("muxado-v2")
VALID = [v for v in ALL if v.valid]
DATA_FRAMES = [v for v in VALID if v.fields["type_name"] == "DATA"]
GO_ENCODED = [v for v in ALL if v.by_go]
UNENCODABLE = [v for v in ALL if "go_encode_error" in v.entry]
REFUSED = [v for v in ALL if (v.entry.get("go_framer_error") or {}).get("kind")]
CUT_SHORT = [v for v in ALL if "EOF" in (v.entry.get("go_framer_error") or {}).get("text", "")]
JUDGED_LATER = [v for v in ALL if not v.valid and v.entry.get("go_framer_error", "-") is None]

PARSED = VALID + REFUSED + CUT_SHORT + JUDGED_LATER
SHORT = [v for v in PARSED if len(v.wire) <= 400]
LONG = [v for v in PARSED if len(v.wire) > 400]
LONGEST_CUT_IN_BYTES = 70_000

CODES = {
    "protocol": ErrorCode.PROTOCOL_ERROR,
    "protocol-stream": ErrorCode.PROTOCOL_ERROR,
    "frame-size": ErrorCode.FRAME_SIZE_ERROR,
}
KINDS = {0: RESET, 1: DATA, 2: CREDIT, 3: GO_AWAY}

PING_FRAME = Frame(DATA, 1)

encoder = MUXADO_V2.encoder


def each(chosen: list[Vector]) -> pytest.MarkDecorator:
    assert chosen
    return pytest.mark.parametrize("vector", chosen, ids=str)


def expected(vector: Vector) -> list[Frame]:
    """Return what a valid vector holds: nothing for an unknown type, which is stepped over."""
    fields = vector.fields
    stream_id = fields["stream_id"]
    match fields["type_name"]:
        case "DATA":
            return [
                Frame(
                    DATA,
                    stream_id,
                    syn=fields["syn"],
                    fin=fields["fin"],
                    length=fields["length"],
                    body=bytearray(vector.payload),
                )
            ]
        case "RST":
            return [Frame(RESET, stream_id, code=fields["error_code"])]
        case "WNDINC":
            return [Frame(CREDIT, stream_id, value=fields["increment"])]
        case "GOAWAY":
            return [
                Frame(
                    GO_AWAY,
                    stream_id,
                    value=fields["last_stream_id"],
                    code=fields["error_code"],
                    text=bytes.fromhex(vector.entry.get("debug", "")),
                )
            ]
        case "UNKNOWN":
            return []
        case other:
            raise AssertionError(f"the golden data has a new type: {other}")


def pack(vector: Vector) -> bytes:
    """Return what our encoder makes of a vector's fields."""
    fields = vector.fields
    stream_id = fields["stream_id"]
    match fields["type_name"]:
        case "DATA":
            header = encoder.data_header(stream_id, fields["length"], fields["syn"], fields["fin"])
            return header + vector.payload
        case "RST":
            return encoder.reset(stream_id, fields["error_code"])
        case "WNDINC":
            return encoder.credit(stream_id, fields["increment"])
        case "GOAWAY":
            debug = bytes.fromhex(vector.entry["debug"])
            return encoder.go_away(
                fields["last_stream_id"], fields["error_code"], debug, final=True
            )
        case other:
            raise AssertionError(f"Go does not write {other}")


def test_every_vector_is_looked_at() -> None:
    sorted_in = [v.name for v in PARSED + UNENCODABLE]
    assert sorted(sorted_in) == sorted(v.name for v in ALL)


# Golden frames


@each(VALID)
def test_reads_what_go_reads(vector: Vector) -> None:
    reader = FrameReader()
    reader.feed(vector.wire)
    assert reader.frames == expected(vector)
    assert not reader.decoder.inside_frame()


@each(GO_ENCODED)
def test_writes_what_go_writes(vector: Vector) -> None:
    assert pack(vector) == vector.wire


@each(REFUSED)
def test_refuses_what_go_refuses(vector: Vector) -> None:
    *before, last = read_frames([vector.wire])
    assert before == []
    assert last.kind == BAD_FRAME
    assert last.code == CODES[vector.entry["go_framer_error"]["kind"]]
    assert last.text != b""


@each(CUT_SHORT)
def test_waits_for_the_rest(vector: Vector) -> None:
    reader = FrameReader()
    reader.feed(vector.wire)
    assert reader.frames == []
    assert reader.decoder.next() == NEED_MORE
    assert reader.decoder.inside_frame() == bool(vector.wire)


@each(JUDGED_LATER)
def test_leaves_to_the_session_what_is_wrong_only_there(vector: Vector) -> None:
    reader = FrameReader()
    reader.feed(vector.wire)
    (frame,) = reader.frames
    assert frame.kind == KINDS[vector.fields["type"]]
    assert frame.stream_id == vector.fields["stream_id"]
    missing = frame.length - len(frame.body)
    assert reader.decoder.body == missing
    assert reader.decoder.inside_frame() == (missing > 0)


# However the input is cut


@each(SHORT)
def test_every_split_point(vector: Vector) -> None:
    wire = vector.wire
    whole = read_frames([wire])
    for place in range(1, len(wire)):
        assert read_frames(cut_at(wire, [place])) == whole, f"cut at {place}"


@each(SHORT)
def test_byte_by_byte(vector: Vector) -> None:
    assert read_frames(byte_by_byte(vector.wire)) == read_frames([vector.wire])


@each(LONG)
def test_long_frames_in_pieces(vector: Vector) -> None:
    wire = vector.wire
    cut = byte_by_byte if len(wire) < LONGEST_CUT_IN_BYTES else pieces(65_521)
    assert read_frames(cut(wire)) == expected(vector)


# All valid frames but the longest, which is in the test above: 16 MiB are slow to compare.
SEQUENCE = [v for v in VALID if len(v.wire) < 1_000_000]
SEQUENCE_WIRE = b"".join(v.wire for v in SEQUENCE)
SEQUENCE_FRAMES = [frame for v in SEQUENCE for frame in expected(v)]
STARTS = [sum(len(v.wire) for v in SEQUENCE[:index]) for index in range(len(SEQUENCE))]

cuts = st.lists(
    st.builds(add, st.sampled_from(STARTS), st.integers(0, 20))
    | st.integers(0, len(SEQUENCE_WIRE)),
    max_size=40,
)


def test_all_frames_in_a_row() -> None:
    assert len(SEQUENCE_WIRE) > READ_SIZE, "the input must run over the decoder's buffer"
    assert read_frames([SEQUENCE_WIRE]) == SEQUENCE_FRAMES


@given(cuts)
@settings(max_examples=100, deadline=None)
def test_all_frames_in_a_row_cut_anywhere(places: list[int]) -> None:
    assert read_frames(cut_at(SEQUENCE_WIRE, places)) == SEQUENCE_FRAMES


@given(
    st.lists(st.sampled_from([v.wire for v in SHORT]) | st.binary(max_size=24), max_size=8),
    st.lists(st.integers(0, 400), max_size=20),
)
@settings(max_examples=200, deadline=None)
def test_garbage_is_read_alike_however_it_is_cut(parts: list[bytes], places: list[int]) -> None:
    data = b"".join(parts)
    assert read_frames(cut_at(data, [min(p, len(data)) for p in places])) == read_frames([data])


# DATA


@each(DATA_FRAMES)
def test_data_is_announced_by_its_header(vector: Vector) -> None:
    """The length can be judged before a single byte of the body has come."""
    reader = FrameReader()
    reader.feed(vector.wire[:7])
    assert reader.frames == []
    reader.feed(vector.wire[7:8])
    (frame,) = reader.frames
    length = vector.fields["length"]
    assert (frame.kind, frame.length, len(frame.body)) == (DATA, length, 0)
    assert reader.decoder.body == length
    assert reader.decoder.take() == b""
    assert reader.decoder.inside_frame() == (length > 0)


@pytest.mark.parametrize("come", [0, 1, 99, 100])
def test_a_body_can_be_skipped_at_any_time(come: int) -> None:
    decoder = MUXADO_V2.new_decoder()
    wire = encoder.data_header(3, 100, False, False) + bytes(100)
    first, rest = wire[: 8 + come], wire[8 + come :] + PING
    decoder.space()[: len(first)] = first
    decoder.filled(len(first))
    assert decoder.next() == DATA
    decoder.skip()
    assert decoder.body == 0
    if come < 100:
        assert decoder.next() == NEED_MORE
        assert decoder.inside_frame()
    decoder.space()[: len(rest)] = rest
    decoder.filled(len(rest))
    assert decoder.next() == DATA
    assert decoder.stream_id == 1
    assert not decoder.inside_frame()


def test_a_half_taken_body_can_be_skipped() -> None:
    decoder = MUXADO_V2.new_decoder()
    wire = encoder.data_header(3, 10, False, False) + b"0123456789" + PING
    decoder.space()[:12] = wire[:12]
    decoder.filled(12)
    assert decoder.next() == DATA
    assert decoder.take() == b"0123"
    decoder.skip()
    decoder.space()[:14] = wire[12:]
    decoder.filled(14)
    assert decoder.next() == DATA
    assert decoder.stream_id == 1


# Unknown types


@pytest.mark.parametrize("frame_type", range(4, 16))
def test_an_unknown_type_of_64_kib_is_stepped_over(frame_type: int) -> None:
    header = bytes([1, 0, 0, frame_type << 4]) + bytes(4)
    assert read_frames([header, bytes(65536), PING]) == [PING_FRAME]


@pytest.mark.parametrize("frame_type", range(4, 16))
@pytest.mark.parametrize("length", [65537, MAX_LENGTH])
def test_a_longer_unknown_type_is_refused_by_its_header(frame_type: int, length: int) -> None:
    header = length.to_bytes(3, "big") + bytes([frame_type << 4]) + bytes(4)
    (frame,) = read_frames([header])
    assert (frame.kind, frame.code) == (BAD_FRAME, ErrorCode.FRAME_SIZE_ERROR)


# GOAWAY


@pytest.mark.parametrize("length", [1023, 1024, 1025, 5000, READ_SIZE + 5000])
def test_debug_text_is_kept_up_to_1_kib(length: int) -> None:
    text = bytes(index % 251 for index in range(length))
    wire = encoder.go_away(7, 2, text, final=True) + PING
    wanted = [Frame(GO_AWAY, 0, value=7, code=2, text=text[:1024]), PING_FRAME]
    assert read_frames([wire]) == wanted
    assert read_frames(pieces(701)(wire)) == wanted
    assert read_frames(byte_by_byte(wire[:2000]))[0] == wanted[0]


def test_text_still_to_be_skipped_is_inside_the_frame() -> None:
    reader = FrameReader()
    reader.feed(encoder.go_away(0, 0, bytes(1025), final=True)[:-1])
    assert len(reader.frames) == 1
    assert reader.decoder.inside_frame()
    reader.feed(b"\x00")
    assert not reader.decoder.inside_frame()


def test_a_go_away_that_is_not_the_end_is_padded() -> None:
    """Go's reader takes 8 bytes too many; all others must step over them."""
    final = encoder.go_away(5, 0, b"drain", final=True)
    padded = encoder.go_away(5, 0, b"drain", final=False)
    assert padded == final + GO_AWAY_PAD
    assert len(GO_AWAY_PAD) == 8
    assert read_frames([padded, PING]) == [*read_frames([final]), PING_FRAME]


def test_the_ping_is_an_empty_data_frame_on_stream_1() -> None:
    assert encoder.ping() == encoder.data_header(1, 0, False, False)
    assert read_frames([encoder.ping()]) == [PING_FRAME]


# The decoder's buffer


@pytest.mark.parametrize("offset", [0, 1, 7, 8, 15, 16, 500, 1039])
def test_there_is_always_space(offset: int) -> None:
    """The longest frame that must be complete may begin anywhere in a full buffer."""
    filler = encoder.data_header(3, READ_SIZE - 8 - offset, False, False)
    wire = filler + bytes(READ_SIZE - 8 - offset) + encoder.go_away(0, 0, bytes(1024), final=True)
    reader = FrameReader()
    reader.feed(wire[:READ_SIZE])
    assert reader.decoder.space().nbytes >= READ_SIZE - offset
    reader.feed(wire[READ_SIZE:])
    assert [frame.kind for frame in reader.frames] == [DATA, GO_AWAY]


def test_a_refused_frame_is_left_for_the_error_message() -> None:
    reader = FrameReader()
    reader.feed(PING + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(100))
    assert reader.failed
    seen = reader.decoder.first_bytes()
    assert len(seen) == 64
    assert seen.startswith(b"GET / HTTP/1.1\r\n")


def test_clear_throws_everything_away() -> None:
    reader = FrameReader()
    reader.feed(PING[:7])
    reader.decoder.clear()
    assert not reader.decoder.inside_frame()
    reader.feed(PING)
    assert reader.frames == [PING_FRAME]


# What can't be packed

UNENCODABLE_CALLS: dict[str, Callable[[Encoder], object]] = {
    "encode-data-stream-id-0x80000000": lambda e: e.data_header(0x80000000, 0, False, False),
    "encode-data-length-16777216": lambda e: e.data_header(3, 16777216, False, False),
    "encode-wndinc-0": lambda e: e.credit(3, 0),
    "encode-wndinc-0x80000000": lambda e: e.credit(3, 0x80000000),
    "encode-rst-stream-id-0x80000000": lambda e: e.reset(0x80000000, 0),
    "encode-goaway-last-0x80000000": lambda e: e.go_away(0x80000000, 0, b"", True),
}


@each(UNENCODABLE)
def test_does_not_pack_what_go_does_not_pack(vector: Vector) -> None:
    with pytest.raises(UsageError, match="must be from"):
        UNENCODABLE_CALLS[vector.name](encoder)


@pytest.mark.parametrize(
    "call",
    [
        lambda: encoder.data_header(0, 0, False, False),
        lambda: encoder.data_header(3, -1, False, False),
        lambda: encoder.reset(0, 0),
        lambda: encoder.reset(3, -1),
        lambda: encoder.reset(3, 1 << 32),
        lambda: encoder.credit(0, 1),
        lambda: encoder.credit(3, -1),
        lambda: encoder.credit(0x80000000, 1),
        lambda: encoder.go_away(-1, 0, b"", True),
        lambda: encoder.go_away(0, 1 << 32, b"", True),
        lambda: encoder.go_away(0, 0, bytes(MAX_LENGTH - 7), True),
    ],
)
def test_fields_out_of_range_are_usage_errors(call: Callable[[], bytes]) -> None:
    with pytest.raises(UsageError, match="must be from"):
        call()


@given(
    st.integers(1, 0x7FFFFFFF),
    st.integers(0, 0xFFFFFFFF),
    st.integers(1, 0x7FFFFFFF),
    st.integers(0, MAX_LENGTH),
    st.booleans(),
    st.booleans(),
)
@settings(deadline=None)
def test_what_is_packed_is_read_back(
    stream_id: int, code: int, increment: int, length: int, syn: bool, fin: bool
) -> None:
    reset = encoder.reset(stream_id, code)
    credit = encoder.credit(stream_id, increment)
    go_away = encoder.go_away(stream_id, code, b"text", final=False)
    data = encoder.data_header(stream_id, length, syn, fin)
    assert read_frames([reset, credit, go_away, data]) == [
        Frame(RESET, stream_id, code=code),
        Frame(CREDIT, stream_id, value=increment),
        Frame(GO_AWAY, 0, value=stream_id, code=code, text=b"text"),
        Frame(DATA, stream_id, syn=syn, fin=fin, length=length),
    ]
