"""The byte queues of a stream: what they give back, and what they hold for it."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable

import pytest

from muxado.core.buffers import Inbox, Outbox

KIB = 1024
MIB = 1024 * KIB


def held(work: Callable[[], object]) -> int:
    """Return how many bytes what `work` makes and returns holds."""
    tracemalloc.start()
    try:
        kept = work()
        size, _ = tracemalloc.get_traced_memory()
        del kept
    finally:
        tracemalloc.stop()
    return size


def random_chunk(rng: random.Random) -> bytes:
    return bytes(rng.choices(b"ab", k=rng.choice([1, 2, 3, 10, 2047, 2048, 5000])))


@pytest.mark.parametrize("seed", range(20))
def test_what_goes_in_comes_out_however_it_is_cut(seed: int) -> None:
    rng = random.Random(seed)
    first = random_chunk(rng)
    inbox, outbox = Inbox(first), Outbox(first)
    written, read, sent = bytearray(first), bytearray(), bytearray()
    for _ in range(300):
        if rng.random() < 0.6:
            chunk = random_chunk(rng)
            written += chunk
            inbox.append(chunk)
            outbox.append(chunk)
        else:
            read += inbox.read(rng.choice([1, 50, 1500, 9000]))
            out: list[bytes | bytearray | memoryview] = []
            outbox.take(min(outbox.size, rng.choice([1, 50, 1500, 9000])), out)
            sent += b"".join(out)
        assert (inbox.size, outbox.size) == (len(written) - len(read), len(written) - len(sent))
    assert read + inbox.read(1 << 30) == written
    out = []
    outbox.take(outbox.size, out)
    assert sent + b"".join(out) == written


@pytest.mark.parametrize("seed", range(20))
def test_a_separator_is_found_where_it_is_also_across_chunks(seed: int) -> None:
    rng = random.Random(seed)
    unread = bytearray(random_chunk(rng))
    inbox = Inbox(bytes(unread))
    for _ in range(200):
        chunk = random_chunk(rng)
        inbox.append(chunk)
        unread += chunk
        gone = rng.choice([0, 0, 1, 700])
        assert inbox.read(gone) == unread[:gone]
        del unread[:gone]
        separator = bytes(rng.choices(b"ab", k=rng.choice([1, 2, 5, 13, 20])))
        start = rng.randrange(len(unread) + 2)
        assert inbox.find(separator, start) == unread.find(separator, start)


def test_a_separator_of_one_byte_is_found_in_a_later_chunk() -> None:
    inbox = Inbox(bytes(2048))
    inbox.append(bytes(2048))
    assert inbox.find(b"\n", 0) == -1
    inbox.append(bytes(2047) + b"\n")
    assert inbox.find(b"\n", 0) == 3 * 2048 - 1


def test_a_separator_may_lie_across_many_chunks() -> None:
    big = bytes(2048)
    inbox = Inbox(big)
    for chunk in (b"\r", big[:1], b"\r"):  # none of them is joined to the first one
        inbox.append(chunk)
    assert inbox.find(bytes(2) + b"\r\0\r", 0) == 2046
    assert inbox.find(big + b"\r\0\r", 0) == 0
    assert inbox.find(big + b"\r\0\r", 1) == -1


@pytest.mark.parametrize("left", [1, 100, 20 * KIB, 39 * KIB])
def test_what_was_read_of_a_chunk_is_given_back(left: int) -> None:
    def work() -> Inbox:
        inbox = Inbox(bytes(60 * KIB))
        while inbox.size > left:
            inbox.read(min(1000, inbox.size - left))
        return inbox

    assert held(work) < 1.5 * left + 500


def test_what_was_read_of_a_later_chunk_is_given_back_too() -> None:
    def work() -> Inbox:
        inbox = Inbox(bytes(60 * KIB))
        for _ in range(2):
            inbox.append(bytes(60 * KIB))
        inbox.read(180 * KIB - 1)
        return inbox

    assert held(work) < 1 * KIB


@pytest.mark.parametrize("size", [1, 2, 100, 2047, 2048])
@pytest.mark.parametrize("box", [Inbox, Outbox])
def test_small_chunks_hold_about_their_bytes(box: type[Inbox] | type[Outbox], size: int) -> None:
    total = 32 * KIB if size < 100 else MIB

    def work() -> Inbox | Outbox:
        queue = box(bytes(size))
        for _ in range(total // size - 1):
            queue.append(bytes(size))
        return queue

    assert held(work) < total * 9 // 8 + 2 * KIB


def test_small_and_large_chunks_in_turn_hold_about_their_bytes() -> None:
    def work() -> Outbox:
        outbox = Outbox(bytes(2048))
        for _ in range(499):
            outbox.append(b"x")
            outbox.append(bytes(2048))
        return outbox

    assert held(work) < 500 * 2049 * 9 // 8 + 2 * KIB


def test_long_chunks_are_sent_by_reference() -> None:
    chunk = bytes(MIB)
    outbox = Outbox(chunk)
    out: list[bytes | bytearray | memoryview] = []
    outbox.take(MIB, out)
    assert out[0] is chunk


def test_small_writes_go_on_while_a_part_of_them_is_held_by_the_output() -> None:
    outbox = Outbox(b"first")
    for _ in range(100):
        outbox.append(b"second")
    out: list[bytes | bytearray | memoryview] = []
    outbox.take(8, out)
    outbox.append(b"third")  # a buffer with a view of it could not grow
    assert b"".join(out) == b"firstsec"
    assert outbox.size == 600 - 3 + 5
