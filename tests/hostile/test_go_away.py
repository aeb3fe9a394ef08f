"""GOAWAY, said twice and more, with rising and falling last ids and long text."""

from __future__ import annotations

import tracemalloc

import pytest

from muxado.core import CoreStream
from muxado.errors import PeerGone, ProtocolError, SessionClosed, StreamRefused
from muxado.wire.codec import READ_SIZE
from tests import inside

from ..core.peer import Bench, data, goaway

MIB = 1024 * 1024


def client_with_streams(count: int) -> tuple[Bench, list[CoreStream]]:
    """A client with streams 3, 5, 7 ... on which nothing has come back."""
    bench = Bench(client=True)
    return bench, [bench.opened(b"request") for _ in range(count)]


def refused(streams: list[CoreStream]) -> list[int]:
    """Return the ids of the streams whose reader is told that they were refused."""
    ids = []
    for stream in streams:
        try:
            stream.read(0)
        except StreamRefused:
            ids.append(stream.stream_id)
    return ids


@pytest.mark.parametrize(
    ("last_ids", "expected"),
    [
        ((9,), []),
        ((5,), [7, 9]),
        ((5, 9), [7, 9]),  # what was refused stays so
        ((7, 3), [5, 7, 9]),
        ((7, 3, 0), [3, 5, 7, 9]),
        ((3, 5, 7), [5, 7, 9]),
        ((0x7FFFFFFF, 8, 6, 8), [7, 9]),
        ((4, 4, 4), [5, 7, 9]),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_last_ids_that_rise_and_fall(
    last_ids: tuple[int, ...], expected: list[int], together: bool
) -> None:
    bench, streams = client_with_streams(4)
    frames = [goaway(last_id, 0) for last_id in last_ids]
    if together:
        bench.hear(*frames)
    else:
        for frame in frames:
            bench.hear(frame)
    assert refused(streams) == expected
    for stream in streams:
        if stream.stream_id not in expected:
            bench.check_echo(stream)
    with pytest.raises(PeerGone):
        bench.core.open()


def test_a_stream_that_was_answered_on_is_spared_by_the_second_goaway_too() -> None:
    bench, streams = client_with_streams(3)
    bench.hear(data(7, b"early"))
    bench.hear(goaway(5, 0))
    bench.hear(data(5, b"between"))
    bench.hear(goaway(0, 0))
    assert refused(streams) == [3]
    assert (streams[1].read(10), streams[2].read(10)) == (b"between", b"early")


def test_the_peers_streams_do_not_care() -> None:
    bench = Bench()
    stream = bench.accepted(data(101, syn=True))
    bench.hear(goaway(0, 0), goaway(50, 1), goaway(0, 2))
    bench.check_echo(stream)
    bench.check_echo(bench.accepted(data(103, syn=True)))


@pytest.mark.parametrize("last", [0, 1])
def test_the_last_code_counts(last: int) -> None:
    bench = Bench()
    bench.hear(goaway(0, 1 - last, b"first"), goaway(0, last, b"second"))
    bench.core.receive_eof(bench.now)
    reason = bench.core.reason
    assert reason is not None
    assert (reason.code, reason.debug, reason.clean) == (last, b"second", last == 0)
    with pytest.raises(ProtocolError if last else SessionClosed):
        bench.core.accept()


@pytest.mark.parametrize("piece", [MIB + 16, 65536, 999])
def test_a_mebibyte_of_text_is_skipped_as_it_comes(piece: int) -> None:
    bench, streams = client_with_streams(1)
    wire = goaway(3, 7, b"e" * MIB) + data(3, b"after")
    inside.decoder(bench.core).make_room(READ_SIZE)  # as large as it gets, before it counts
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for start in range(0, len(wire), piece):
            bench.core.receive_data(memoryview(wire)[start : start + piece], bench.now)
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert held < 16 * 1024
    assert streams[0].read(100) == b"after"
    bench.core.receive_eof(bench.now)
    assert bench.core.reason is not None
    assert bench.core.reason.debug == b"e" * 1024


def test_text_that_never_comes_is_the_end_inside_a_frame() -> None:
    bench, _ = client_with_streams(1)
    bench.hear(goaway(3, 7, b"e" * MIB)[:-1])
    assert inside.peer_gone(bench.core)
    bench.core.receive_eof(bench.now)
    reason = bench.core.reason
    assert reason is not None
    assert (reason.code, reason.by_peer, reason.clean) == (7, True, False)


def test_text_can_write_no_lines_of_its_own_into_a_log() -> None:
    bench = Bench()
    text = "ünï\n2026-01-01 root logged in\x1b[2J\r\u2028".encode()
    bench.hear(goaway(0, 7, text))
    bench.core.receive_eof(bench.now)
    reason = bench.core.reason
    assert reason is not None
    assert reason.debug == text
    assert reason.message.isprintable()
    assert "root logged in" in reason.message
