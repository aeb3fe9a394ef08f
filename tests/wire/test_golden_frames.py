"""Every codec but v2's against the golden frames of its format, however they are cut.

v2's, which has more of them, has tests of its own beside this.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muxado.errors import ErrorCode
from muxado.wire import FORMATS, WireFormat
from muxado.wire.codec import (
    ACCEPTED,
    BAD_FRAME,
    CREDIT,
    DATA,
    GO_AWAY,
    NEED_MORE,
    PING,
    PONG,
    RESET,
    WINDOW,
)
from muxado.wire.muxado_v1 import from_wire

from ..core.pair import byte_by_byte
from ..frames import Frame, FrameReader, cut_at, read_frames
from ..golden import Vector, vectors

WIRES = ("muxado-v1", "yamux", "smux-v1", "smux-v2")

# What Go refuses by a frame's own bytes; the rest of what is not valid is out of place only.
REFUSED = {
    "muxado-v1": {
        "type-0": ErrorCode.PROTOCOL_ERROR,
        "type-5-priority": ErrorCode.PROTOCOL_ERROR,
        "type-7": ErrorCode.PROTOCOL_ERROR,
        "type-31": ErrorCode.PROTOCOL_ERROR,
        "syn-length-4-no-flags": ErrorCode.FRAME_SIZE_ERROR,
        "syn-flags-without-body": ErrorCode.FRAME_SIZE_ERROR,
        "syn-length-12": ErrorCode.FRAME_SIZE_ERROR,
        "rst-length-3": ErrorCode.FRAME_SIZE_ERROR,
        "wndinc-length-5": ErrorCode.FRAME_SIZE_ERROR,
        "goaway-length-0": ErrorCode.FRAME_SIZE_ERROR,
    },
    "yamux": {
        "version-1": ErrorCode.PROTOCOL_ERROR,
        "type-4": ErrorCode.PROTOCOL_ERROR,
        "type-255": ErrorCode.PROTOCOL_ERROR,
    },
    "smux-v1": {
        "other-version": ErrorCode.PROTOCOL_ERROR,
        "version-0": ErrorCode.PROTOCOL_ERROR,
        "cmd-5": ErrorCode.PROTOCOL_ERROR,
        "upd-in-v1": ErrorCode.PROTOCOL_ERROR,
        "syn-with-length": ErrorCode.FRAME_SIZE_ERROR,
        "fin-with-length": ErrorCode.FRAME_SIZE_ERROR,
        "nop-with-length": ErrorCode.FRAME_SIZE_ERROR,
    },
    "smux-v2": {
        "other-version": ErrorCode.PROTOCOL_ERROR,
        "version-0": ErrorCode.PROTOCOL_ERROR,
        "cmd-5": ErrorCode.PROTOCOL_ERROR,
        "upd-length-4": ErrorCode.FRAME_SIZE_ERROR,
        "syn-with-length": ErrorCode.FRAME_SIZE_ERROR,
        "fin-with-length": ErrorCode.FRAME_SIZE_ERROR,
        "nop-with-length": ErrorCode.FRAME_SIZE_ERROR,
    },
}

EVERY = [
    (name, vector)
    for name in WIRES
    for vector in vectors(name)
    if "go_encode_error" not in vector.entry
]
VALID = [(name, vector) for name, vector in EVERY if vector.valid]
SHORT = [(name, vector) for name, vector in EVERY if len(vector.wire) <= 400]


def each(chosen: list[tuple[str, Vector]]) -> pytest.MarkDecorator:
    assert chosen
    return pytest.mark.parametrize(
        ("name", "vector"), chosen, ids=[f"{name}-{vector}" for name, vector in chosen]
    )


def expected(name: str, vector: Vector) -> list[Frame]:
    """Return what a valid vector says."""
    match name:
        case "muxado-v1":
            return expected_v1(vector)
        case "yamux":
            return expected_yamux(vector)
        case _:
            return expected_smux(vector)


def data(vector: Vector, *, syn: bool = False, fin: bool = False) -> Frame:
    body = bytearray(vector.payload) if vector.fields["length"] else bytearray()
    return Frame(DATA, vector.fields["stream_id"], syn=syn, fin=fin, length=len(body), body=body)


def expected_v1(vector: Vector) -> list[Frame]:
    fields = vector.fields
    stream_id = fields["stream_id"]
    match fields["type_name"]:
        case "SYN":  # its FIN is no FIN
            stream_type, priority = fields["stream_type"], fields["priority"]
            return [Frame(DATA, stream_id, syn=True, type=stream_type, priority=priority)]
        case "DATA":
            return [data(vector, fin=fields["fin"])]
        case "RST":
            return [Frame(RESET, stream_id, code=from_wire(fields["error_code"]))]
        case "WNDINC":
            increment = fields["increment"]
            return [Frame(CREDIT, stream_id, value=increment)] if increment else []
        case "GOAWAY":
            code, text = from_wire(fields["error_code"]), bytes.fromhex(fields["debug"])
            return [Frame(GO_AWAY, stream_id, value=fields["last_stream_id"], code=code, text=text)]
        case other:
            raise AssertionError(f"the golden data has a new type: {other}")


def expected_yamux(vector: Vector) -> list[Frame]:
    fields = vector.fields
    stream_id, flags, length = fields["stream_id"], fields["flags"], fields["length"]
    syn, ack, fin, rst = (flags & bit != 0 for bit in (1, 2, 4, 8))
    match fields["type_name"]:
        case "DATA":
            if rst:
                return [Frame(RESET, stream_id, code=ErrorCode.STREAM_RESET)]
            return [data(vector, syn=syn, fin=fin), *([Frame(ACCEPTED, stream_id)] if ack else [])]
        case "WINDOW_UPDATE":
            frames = [Frame(DATA, stream_id, syn=True)] if syn else []
            frames += [Frame(ACCEPTED, stream_id)] if ack else []
            if rst:
                return [*frames, Frame(RESET, stream_id, code=ErrorCode.STREAM_RESET)]
            frames += [Frame(CREDIT, stream_id, value=length)] if length else []
            return frames + ([Frame(DATA, stream_id, fin=True)] if fin else [])
        case "PING":
            return [Frame(PING if syn else PONG, 0, value=length)]
        case "GOAWAY":
            return [Frame(GO_AWAY, 0, value=0xFFFFFFFF, code=length)]
        case other:
            raise AssertionError(f"the golden data has a new type: {other}")


def expected_smux(vector: Vector) -> list[Frame]:
    fields = vector.fields
    stream_id = fields["stream_id"]
    match fields["cmd_name"]:
        case "SYN":
            return [Frame(DATA, stream_id, syn=True)]
        case "FIN":
            return [Frame(DATA, stream_id, fin=True)]
        case "PSH":
            return [data(vector)]
        case "NOP":
            return []
        case "UPD":
            return [Frame(WINDOW, stream_id, value=fields["consumed"], window=fields["window"])]
        case other:
            raise AssertionError(f"the golden data has a new command: {other}")


def pack(wire: WireFormat, name: str, vector: Vector) -> bytes | None:
    """Return what our encoder makes of what a vector says; None if we never say it so."""
    encoder = wire.encoder
    fields = vector.fields
    stream_id = fields["stream_id"]
    match name, fields.get("type_name") or fields["cmd_name"]:
        case "muxado-v1", "SYN":
            if fields["fin"]:
                return None
            return encoder.open(stream_id, fields["stream_type"], fields["priority"])
        case "muxado-v1", "DATA":
            header = encoder.data_header(stream_id, fields["length"], False, fields["fin"])
            return header + vector.payload
        case "muxado-v1", "RST":
            return encoder.reset(stream_id, from_wire(fields["error_code"]))
        case "muxado-v1", "WNDINC":
            return encoder.credit(stream_id, fields["increment"]) if fields["increment"] else None
        case "muxado-v1", "GOAWAY":
            if fields["length"] != 8:
                return None
            return encoder.go_away(fields["last_stream_id"], fields["error_code"], b"", True)
        case "yamux", "DATA":
            if fields["flags"] & ~4 or (fields["flags"] and fields["length"]):
                return None
            header = encoder.data_header(stream_id, fields["length"], False, fields["flags"] == 4)
            return header + (vector.payload if fields["length"] else b"")
        case "yamux", "WINDOW_UPDATE":
            match fields["flags"], fields["length"]:
                case 1, 0:
                    return encoder.open(stream_id, 0, 0)
                case 2, 0:
                    return encoder.accept(stream_id)
                case 8, 0:
                    return encoder.reset(stream_id, ErrorCode.STREAM_CANCELLED)
                case 0, increment if increment < 1 << 31:
                    return encoder.credit(stream_id, increment)
                case _:
                    return None
        case "yamux", "PING":
            if fields["flags"] == 2:
                return encoder.pong(fields["length"])
            return encoder.ping() if fields["length"] == 0 else None
        case "yamux", "GOAWAY":
            return encoder.go_away(0, fields["length"], b"text", False)
        case _, "SYN":
            return encoder.open(stream_id, 0, 0)
        case _, "FIN":
            return encoder.data_header(stream_id, 0, False, True)
        case _, "PSH":
            return encoder.data_header(stream_id, fields["length"], False, False) + vector.payload
        case _, "NOP":
            return encoder.ping()
        case _, "UPD":
            return encoder.window(stream_id, fields["consumed"], fields["window"])
        case other:
            raise AssertionError(f"the golden data has something new: {other}")


@each(VALID)
def test_reads_what_go_reads(name: str, vector: Vector) -> None:
    reader = FrameReader(FORMATS[name])
    reader.feed(vector.wire)
    assert reader.frames == expected(name, vector)
    assert not reader.decoder.inside_frame()


@each([(n, v) for n, v in VALID if v.by_go and pack(FORMATS[n], n, v) is not None])
def test_writes_what_go_writes(name: str, vector: Vector) -> None:
    assert pack(FORMATS[name], name, vector) == vector.wire


def test_most_of_what_go_writes_is_written_here_too() -> None:
    for name in WIRES:
        valid = [vector for wire, vector in VALID if wire == name and vector.by_go]
        packed = [vector for vector in valid if pack(FORMATS[name], name, vector) is not None]
        assert len(packed) >= len(valid) / 2, name


@each([(n, v) for n, v in EVERY if v.name in REFUSED[n]])
def test_refuses_what_go_refuses(name: str, vector: Vector) -> None:
    *before, last = read_frames([vector.wire], FORMATS[name])
    assert before == []
    assert (last.kind, last.code) == (BAD_FRAME, REFUSED[name][vector.name])
    assert last.text


@each([(n, v) for n, v in EVERY if not v.valid and v.name not in REFUSED[n]])
def test_leaves_to_the_session_what_is_wrong_only_there(name: str, vector: Vector) -> None:
    reader = FrameReader(FORMATS[name])
    reader.feed(vector.wire)
    assert not reader.failed


@each(SHORT)
def test_every_split_point(name: str, vector: Vector) -> None:
    wire = FORMATS[name]
    whole = read_frames([vector.wire], wire)
    for place in range(1, len(vector.wire)):
        assert read_frames(cut_at(vector.wire, [place]), wire) == whole, f"cut at {place}"
    assert read_frames(byte_by_byte(vector.wire), wire) == whole


@pytest.mark.parametrize("name", WIRES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_all_frames_in_a_row_cut_anywhere(name: str, data: st.DataObject) -> None:
    valid = [vector for wire, vector in VALID if wire == name]
    whole = b"".join(vector.wire for vector in valid)
    places = data.draw(st.lists(st.integers(0, len(whole)), max_size=30))
    frames = [frame for vector in valid for frame in expected(name, vector)]
    assert read_frames(cut_at(whole, places), FORMATS[name]) == frames


@pytest.mark.parametrize("name", WIRES)
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_garbage_is_read_alike_however_it_is_cut(name: str, data: st.DataObject) -> None:
    short = [vector.wire for wire, vector in SHORT if wire == name]
    parts = data.draw(st.lists(st.sampled_from(short) | st.binary(max_size=24), max_size=8))
    whole = b"".join(parts)
    places = data.draw(st.lists(st.integers(0, len(whole)), max_size=20))
    wire = FORMATS[name]
    assert read_frames(cut_at(whole, places), wire) == read_frames([whole], wire)


@pytest.mark.parametrize("name", WIRES)
@pytest.mark.parametrize("come", [0, 1, 99, 100])
def test_a_body_can_be_skipped_at_any_time(name: str, come: int) -> None:
    wire = FORMATS[name]
    decoder = wire.new_decoder()
    header = wire.encoder.data_header(5, 100, False, False)
    end = wire.encoder.data_header(5, 0, False, True)
    first, rest = header + bytes(come), bytes(100 - come) + end
    decoder.space()[: len(first)] = first
    decoder.filled(len(first))
    assert decoder.next() == DATA
    assert decoder.length == decoder.body == 100
    decoder.skip()
    if come < 100:
        assert decoder.next() == NEED_MORE
        assert decoder.inside_frame()
    decoder.space()[: len(rest)] = rest
    decoder.filled(len(rest))
    assert decoder.next() == DATA
    assert (decoder.stream_id, decoder.fin, decoder.length) == (5, True, 0)
    assert not decoder.inside_frame()
