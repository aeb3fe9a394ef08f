"""What the transport of a session that ends needs, step by step, and what an end is told as."""

from __future__ import annotations

import pytest

from muxado.core import (
    ABORT,
    CLOSE,
    ENDED,
    HALF_CLOSE,
    NOTHING,
    WRITE,
    CoreSession,
)
from muxado.errors import SessionError

from .pair import Pair
from .peer import Bench, data, goaway


def end_output(core: CoreSession) -> None:
    """Do as a front end does that was told to end the output."""
    assert core.closing.output_step() in (HALF_CLOSE, CLOSE)
    core.closing.end_output()


def test_an_idle_session_asks_for_nothing_and_one_with_data_to_be_written() -> None:
    bench = Bench(client=True)
    bench.flush()
    assert bench.core.closing.output_step() == NOTHING
    bench.core.open().write(b"hello")
    assert bench.core.closing.output_step() == WRITE
    bench.flush()
    assert bench.core.closing.output_step() == NOTHING


def test_a_close_writes_then_half_closes_then_waits_for_the_peers_end() -> None:
    pair = Pair()
    pair.run()
    pair.client.close(pair.now)
    assert pair.client.closing.output_step() == WRITE
    pair.run()
    end_output(pair.client)
    assert pair.client.closing.output_step() == NOTHING
    assert pair.client.data_to_send(pair.now, 1000) == b""
    pair.client.receive_eof(pair.now)
    assert pair.client.closing.output_step() == CLOSE
    pair.client.connection_lost(None, pair.now)
    assert pair.client.ledger.state == ENDED
    assert pair.client.closing.output_step() == NOTHING


def test_after_the_peers_end_both_directions_are_closed_at_once() -> None:
    pair = Pair()
    pair.run()
    pair.server.close(pair.now)
    pair.run()
    pair.client.receive_eof(pair.now)
    pair.run()
    assert pair.client.closing.output_step() == CLOSE


def test_an_abort_tears_the_transport_down_whatever_waits() -> None:
    bench = Bench(client=True)
    bench.core.open().write(b"hello")
    bench.core.abort(2, bench.now)
    assert bench.core.closing.output_step() == ABORT


def test_what_is_unsent_for_want_of_credit_holds_the_end_up() -> None:
    bench = Bench(client=True)
    stream = bench.core.open()
    stream.write(bytes(stream.send_credit + 1))
    bench.core.close(bench.now)
    bench.flush()
    assert bench.core.closing.output_step() == NOTHING
    bench.core.handle_timer(bench.core.next_deadline())
    assert bench.core.closing.output_step() == ABORT


@pytest.mark.parametrize("side", ["this", "peer"])
def test_a_session_drains_from_the_first_goaway_of_either_side(side: str) -> None:
    bench = Bench()
    assert not bench.core.closing.draining
    if side == "this":
        bench.core.go_away()
    else:
        bench.hear(goaway(0))
    assert bench.core.closing.draining


def test_an_abandoned_session_keeps_the_end_that_it_had() -> None:
    bench = Bench()
    bench.core.abandon("a step was cut off")
    reason = bench.core.reason
    assert reason is not None
    assert reason.message == "a step was cut off"
    with pytest.raises(SessionError, match="cut off"):
        raise bench.core.ledger.failure()
    bench.core.abandon("again")
    assert bench.core.reason is reason
    assert bench.core.closing.output_step() == NOTHING


@pytest.mark.parametrize("transport", ["tcp", "tls", "websocket"])
def test_a_client_that_is_reset_before_a_word_wonders_about_tls(transport: str) -> None:
    bench = Bench(client=True)
    if transport == "tls":
        bench.core.agree("h2")
    elif transport == "websocket":
        bench.core.confirm_output()
    bench.core.connection_lost(ConnectionResetError("reset by peer"), bench.now)
    assert bench.core.reason is not None
    message = bench.core.reason.message
    assert "before the peer said anything" in message
    assert ("expect TLS?" in message) == (transport == "tcp")


def test_a_reset_after_the_peer_has_spoken_is_a_lost_connection_only() -> None:
    bench = Bench(client=True)
    bench.hear(data(2, syn=True))
    bench.core.connection_lost(ConnectionResetError("reset by peer"), bench.now)
    assert bench.core.reason is not None
    assert bench.core.reason.message == "the connection was lost: reset by peer"
