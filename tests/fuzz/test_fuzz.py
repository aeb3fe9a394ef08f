"""Any input, whatever is done meanwhile, is carried on with or ends with a documented code."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ..core.peer import data, goaway, header, rst, wndinc
from ..frames import cut_at, read_frames
from .play import CLIENT, TYPED, Play, play
from .seeds import seeds

# Small ids meet each other, and the ids that are used here.
IDS = st.sampled_from([1, 2, 3, 4, 5, 7, 2, 3, 2, 3]) | st.sampled_from(
    [0, 6, 8, 9, 1000, 0x7FFFFFFF, 0x80000003, 0xFFFFFFFF]
)
LENGTHS = st.sampled_from([0, 1, 2, 3, 4, 5, 8, 30, 64, 65, 100]) | st.sampled_from(
    [1000, 65536, 131072, 262144, 262145]
)
PAYLOADS = st.builds(lambda length, byte: bytes([byte]) * length, LENGTHS, st.integers(0, 255))
CODES = st.sampled_from([0, 4, 5, 6, 9, 11, 255, 0xFFFFFFFF])
FRAMES = st.one_of(
    st.builds(data, IDS, PAYLOADS, syn=st.booleans(), fin=st.booleans()),
    st.builds(data, IDS, PAYLOADS, syn=st.just(True)),
    st.builds(data, IDS, st.just(b"\xff\xff\xff\xffbeat"), syn=st.booleans()),
    st.builds(rst, IDS, CODES),
    st.builds(wndinc, IDS, st.sampled_from([1, 2, 64, 1000, 0x7FFFFFFF, 1, 64, 1000, 0])),
    st.builds(goaway, IDS, CODES, PAYLOADS),
    st.builds(
        lambda length, kind, flags, i: header(length, kind, flags, i) + bytes(min(length, 99)),
        st.sampled_from([0, 1, 3, 4, 5, 8, 65536, 65537, 0xFFFFFF]),
        st.integers(0, 15),
        st.integers(0, 15),
        IDS,
    ),
)
WIRES = st.lists(FRAMES, max_size=25).map(b"".join) | st.binary(max_size=200)


@st.composite
def lawful(draw: st.DrawFn, flags: int) -> bytes:
    """Draw what a peer sends that keeps to the rules of opening, so that the session goes on."""
    opened = 2 if flags & CLIENT else 3
    frames: list[bytes] = []
    for _ in range(draw(st.integers(0, 25))):
        kind = draw(st.integers(0, 9))
        # Mostly one of the last streams, sometimes one that may be ours.
        stream_id = max(2, opened - draw(st.sampled_from([2, 2, 2, 4, 6, 1, 3])))
        if kind < 4:
            frames.append(data(opened, draw(PAYLOADS), syn=True, fin=kind == 0))
            opened += 2
        elif kind < 7:
            frames.append(data(stream_id, draw(PAYLOADS), fin=kind == 4))
        elif kind == 7:
            frames.append(wndinc(stream_id, draw(st.integers(1, 300_000))))
        else:
            frames.append(rst(stream_id, draw(CODES)))
    return b"".join(frames)


ACTIONS = st.binary(max_size=40)
FLAGS = st.integers(0, 7)
INPUTS = FLAGS.flatmap(lambda flags: st.tuples(st.just(flags), (lawful(flags) | WIRES).map(Wire)))


class Wire(bytes):
    """What a peer sends, shown frame by frame when a test fails."""

    def __repr__(self) -> str:
        frames = read_frames([self])
        shown = [
            (frame.kind, frame.stream_id, frame.length, frame.syn, frame.fin, frame.value)
            for frame in frames
        ]
        return f"Wire({len(self)} bytes: {shown})"


QUICK = settings(max_examples=300, deadline=None)


def encoded(flags: int, actions: bytes, wire: bytes) -> bytes:
    return bytes([flags, len(actions)]) + actions + wire


@given(INPUTS, ACTIONS)
@settings(QUICK, max_examples=1000)
def test_any_input_is_answered_by_the_rules(given: tuple[int, bytes], actions: bytes) -> None:
    flags, wire = given
    play(encoded(flags, actions, wire))


@given(INPUTS, ACTIONS, st.lists(st.integers(0, 2000), max_size=20))
@settings(QUICK)
def test_how_input_is_cut_changes_nothing(
    given: tuple[int, bytes], actions: bytes, places: list[int]
) -> None:
    flags, wire = given
    # Of a text, what has come is quoted.
    assume(re.match(rb"[\t\r\n -~]{8}", wire) is None)
    # With a full accept queue the cut decides who is refused: reading on is a turn of its own.
    flags &= CLIENT | TYPED
    data = encoded(flags, actions, wire)
    check_same(play(data), play(data, lambda piece: cut_at(piece, places)))


CONVERSATIONS = {name: seed for name, seed in seeds().items() if not name.startswith("frame-")}


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_mutated_conversations(name: str) -> None:
    rng = random.Random(name)
    for _ in range(40):
        play(mutated(CONVERSATIONS[name], rng))


def test_golden_frames_one_after_the_other() -> None:
    for name, seed in seeds().items():
        if name.startswith("frame-"):
            play(seed)
            play(seed + seed[2:])


def mutated(seed: bytes, rng: random.Random) -> bytes:
    """Return a seed with some bytes changed, dropped and doubled."""
    data = bytearray(seed)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(data) + 1)
        part = data[at : at + rng.randrange(1, 40)]
        choice = rng.randrange(3)
        if choice == 0:
            data[at : at + 1] = bytes([rng.choice([0, 1, 2, 3, 0x10, 0x7F, 0x80, 0xFF])])
        elif choice == 1:
            del data[at : at + len(part)]
        else:
            data[at:at] = part
    return bytes(data)


def check_same(one: Play, other: Play) -> None:
    assert one.out == other.out
    assert one.read == other.read
    for player in (one, other):
        assert player.core.reason is not None
    assert one.core.reason == other.core.reason
    assert one.core.stats() == other.core.stats()


def test_a_legal_unknown_frame_first_is_no_foreign_protocol_however_it_is_cut() -> None:
    data = bytes([0]) + b"\x01\x00\x00@\x00\x00\x00\x00\x00"
    check_same(play(data), play(data, lambda piece: cut_at(piece, [8])))
