"""What a session tells of its streams, and that its figures agree with what happened."""

from __future__ import annotations

import ast
import struct
import sys
from pathlib import Path

import pytest

import muxado.core
from muxado import Config, ErrorCode
from muxado.build import COMPILED
from muxado.core import CoreStream, StreamSnapshot
from tests import inside

from .pair import Pair, drain
from .peer import Bench, data, rst


def look(pair: Pair, stream: CoreStream) -> StreamSnapshot:
    return stream.snapshot(pair.now)


def test_bytes_each_way_are_those_that_were_moved() -> None:
    pair = Pair(Config(initial_window=64 * 1024))
    near, far = pair.open_pair()
    opened = near.bytes_sent
    for size in (1, 100, 64 * 1024, 1_000_000):
        near.write(bytes(size))
        while near.queued():
            pair.run()
            drain(far)
        far.write(bytes(3))
        pair.run()
    moved = 1 + 100 + 64 * 1024 + 1_000_000
    assert near.bytes_sent - opened == far.bytes_received - opened == moved
    assert near.bytes_received == far.bytes_sent == 12
    assert pair.client.stats().bytes_sent == near.bytes_sent
    assert pair.server.stats().bytes_received == far.bytes_received


def test_credit_beyond_every_bound_is_no_byte_sent() -> None:
    bench = Bench()
    bench.hear(data(3, syn=True))
    (stream,) = bench.core.table.list_streams()
    for _ in range(3):
        inside.credit_received(bench.core, stream, 1 << 60)
    assert stream.bytes_sent == 0


def test_a_snapshot_tells_what_a_stream_waits_for() -> None:
    pair = Pair(Config(initial_window=1000, max_window=1000))
    near = pair.client.open()
    assert look(pair, near).state == "idle"
    near.write(bytes(1500))
    assert look(pair, near).waits_for == ("turn",)
    pair.run()
    (far,) = pair.server.table.list_streams()
    seen = look(pair, near)
    assert (seen.direction, seen.state, seen.queued, seen.waits_for) == (
        "out",
        "open",
        500,
        ("credit",),
    )
    seen = look(pair, far)
    assert (seen.direction, seen.unread, seen.waits_for) == ("in", 1000, ("accept",))
    assert pair.server.accept() is far
    assert look(pair, far).waits_for == ("reader",)
    drain(far)
    far.read_waiter = object()
    pair.run()
    drain(far)
    assert look(pair, far).waits_for == ()  # it was woken
    far.read_waiter = object()
    pair.now += 7.5
    seen = look(pair, far)
    assert (seen.waits_for, seen.age, seen.bytes_received) == (("data",), 7, 1500)


def test_an_untyped_stream_waits_for_its_type() -> None:
    bench = Bench(config=Config(typed=True))
    bench.hear(data(3, b"\0\0", syn=True))
    (stream,) = bench.core.table.list_streams()
    assert stream.snapshot(bench.now).waits_for == ("type",)
    bench.hear(data(3, b"\0\7"))
    assert stream.snapshot(bench.now).type == 7


def test_heartbeats_are_no_streams() -> None:
    bench = Bench(config=Config(typed=True))
    bench.hear(data(3, b"\xff\xff\xff\xff", syn=True))
    assert bench.core.table.list_streams() == []


def test_ended_streams_are_told_of_once() -> None:
    pair = Pair()
    ended: list[int] = []
    pair.server.table.watch(lambda stream: ended.append(stream.stream_id))
    near, far = pair.open_pair()
    other, _ = pair.open_pair()
    unaccepted = pair.client.open(eager=True)
    pair.run()
    unaccepted.reset(6)
    near.close()
    far.close()
    pair.run()
    assert ended == [near.stream_id]
    pair.server.abort(2, pair.now)
    assert ended == [near.stream_id, other.stream_id]
    pair.server.table.watch(None)


def test_resets_and_refusals_are_counted_by_code() -> None:
    bench = Bench(config=Config(max_incoming_streams=2))
    bench.hear(*[data(number, syn=True) for number in (3, 5, 7)])
    bench.hear(rst(3, 403))
    stats = bench.core.stats()
    assert dict(stats.resets_received_by_code) == {403: 1}
    assert dict(stats.refusals_by_code) == {ErrorCode.STREAM_REFUSED: 1}
    assert dict(stats.resets_sent_by_code) == {ErrorCode.STREAM_REFUSED: 1}
    assert (stats.resets_sent, stats.resets_received, stats.refusals) == (1, 1, 1)


def test_a_peer_can_not_make_the_counts_grow() -> None:
    bench = Bench()
    for number in range(200):
        stream_id = 3 + 2 * number
        bench.hear(data(stream_id, syn=True))
        stream = bench.core.accept()
        assert stream is not None
        bench.hear(rst(stream_id, 1000 + number))
        stream.close()
    counts = bench.core.stats().resets_received_by_code
    assert len(counts) == 65
    assert counts[ErrorCode.UNKNOWN] == 200 - 64
    assert sum(counts.values()) == 200


@pytest.mark.parametrize("client", [True, False])
def test_what_was_heard_last_is_known(client: bool) -> None:
    bench = Bench(client=client)
    begun = bench.now
    assert bench.core.liveness.received_at == begun
    bench.now += 5
    assert bench.core.liveness.received_at == begun
    bench.hear(data(9999999, b""))
    assert bench.core.liveness.received_at == begun + 5


# What snapshots cost while none is taken

CORE = Path(muxado.core.__file__).parent
LOOKED_AT = {"recv_granted", "send_granted", "opened_at"}
ALL_SLOTS = tuple(name for part in CoreStream.__mro__ for name in getattr(part, "__slots__", ()))


def places(name: str, context: type[ast.expr_context]) -> list[str]:
    """Return the functions of the core that store or load an attribute, one for each time."""
    found = []
    for path in sorted(CORE.glob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                found += [
                    function.name
                    for node in ast.walk(function)
                    if isinstance(node, ast.Attribute)
                    and node.attr == name
                    and isinstance(node.ctx, context)
                ]
    return sorted(found)


def test_a_grant_costs_one_addition_and_a_frame_of_data_nothing() -> None:
    # In __init__, where a grant is packed, in either kind of window, and for a sender that goes
    # beyond what it was granted.
    assert len(places("recv_granted", ast.Store)) == 4
    # In __init__, and where a WNDINC comes; twice there if it makes a credit beyond every bound.
    # Once more for wires that tell credit as a total.
    assert len(places("send_granted", ast.Store)) == 4
    assert places("opened_at", ast.Store) == ["__init__"]


def test_the_end_of_a_stream_costs_one_test() -> None:
    assert places("on_end", ast.Load)[-2:] == ["forget", "forget"]  # the test, and the call


@pytest.mark.skipif(COMPILED, reason="a compiled object keeps its numbers in itself")
def test_a_stream_grows_by_three_words() -> None:
    class With:
        __slots__ = ALL_SLOTS

    class Without:
        __slots__ = tuple(set(ALL_SLOTS) - LOOKED_AT)

    assert sys.getsizeof(With()) - sys.getsizeof(Without()) == 3 * struct.calcsize("P")
    pair = Pair()
    near, _ = pair.open_pair()
    size = pair.client.ledger.config.initial_window
    # An idle stream shares its numbers with the settings.
    assert near.recv_granted is size
    assert near.send_granted is size
