"""What every relay knows of its two directions: ends, time limits, and what resets mean."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from math import inf
from time import monotonic, time

import pytest

from muxado.errors import ErrorCode, StreamClosed, StreamReset, UsageError
from muxado.relaying import (
    RelayRecord,
    arm_reset,
    code_of_loss,
    code_of_reset,
    reads_no_more,
)

LONG = 1000.0


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_a_time_limit_is_above_0(timeout: float) -> None:
    for limits in ((timeout, None), (None, timeout)):
        with pytest.raises(UsageError, match="above 0"):
            RelayRecord(*limits)


def test_without_limits_it_is_never_overdue() -> None:
    record = RelayRecord(None, None)
    record._input_has_ended()
    assert not record._has_timeouts()
    assert record._deadline() == inf
    assert record._overdue(monotonic() + 1e9) is None


def test_every_byte_and_every_end_begins_the_silence_anew() -> None:
    record = RelayRecord(LONG, None)
    assert record._has_timeouts()
    steps: tuple[Callable[[], object], ...] = (
        partial(record._came_for_stream, 5),
        partial(record._came_from_stream, 7),
        record._input_has_ended,
        record._output_has_ended,
    )
    for step in steps:
        before = monotonic()
        step()
        assert record._deadline() >= before + LONG
        assert record._overdue(record._deadline() - 1) is None
        assert record._overdue(record._deadline()) == "idle"


def test_only_one_end_begins_the_time_of_the_other() -> None:
    record = RelayRecord(10 * LONG, LONG)
    assert record._deadline() > monotonic() + 5 * LONG
    record._output_has_ended()
    assert record._deadline() < monotonic() + 5 * LONG
    assert record._overdue(record._deadline()) == "half_closed"
    record._input_has_ended()
    assert record._deadline() > monotonic() + 5 * LONG


def test_the_first_reason_of_the_end_counts_and_the_result_tells_it() -> None:
    record = RelayRecord(None, None)
    record._came_for_stream(5)
    record._came_from_stream(7)
    error = OSError("gone")
    assert record._end("idle", error, 77)
    assert not record._end("half_closed")
    record._lose_reset()
    result = record._make_result()
    assert (result.to_stream, result.from_stream) == (5, 7)
    assert (result.ended, result.error, result.code, result.reset_lost) == ("idle", error, 77, True)
    assert result.last_byte_at is not None
    assert result.started_at <= result.last_byte_at <= time() + 1
    silent = RelayRecord(None, None)
    silent._end("idle")
    assert silent._make_result().last_byte_at is None


def test_the_loss_of_the_other_side_is_a_reset_and_a_fault_of_ours_is_not() -> None:
    for lost in (None, ConnectionResetError(), EOFError()):
        assert code_of_loss(lost) == ErrorCode.STREAM_RESET
    assert code_of_loss(ValueError()) == ErrorCode.INTERNAL_ERROR


def test_a_reset_tells_its_code_and_whether_the_peer_only_reads_no_more() -> None:
    closed = int(ErrorCode.STREAM_CLOSED)
    assert code_of_reset(StreamReset("reset", code=77, by_peer=True)) == 77
    assert code_of_reset(OSError()) is None
    assert reads_no_more(StreamReset("closed", code=closed, by_peer=True))
    assert not reads_no_more(StreamReset("closed", code=closed, by_peer=False))
    assert not reads_no_more(StreamReset("reset", code=77, by_peer=True))
    assert not reads_no_more(StreamClosed("closed"))


def test_the_peer_of_an_armed_socket_is_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        near = socket.create_connection(listening.getsockname())
        far, _ = listening.accept()
        with far:
            assert arm_reset(near)
            near.close()
            with pytest.raises(ConnectionResetError):
                far.recv(1)
        assert arm_reset(near)  # it is closed already
    assert not arm_reset(None)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets")
def test_the_peer_of_a_unix_socket_can_not_be_told() -> None:
    near, far = socket.socketpair(socket.AF_UNIX)
    with near, far:
        assert not arm_reset(near)
