"""The session's own calls: the wire that TLS agrees on, pings, limits that are raised."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from muxado.config import Config
from muxado.core import CoreSession, MemoryPool
from muxado.errors import ConfigError, ErrorCode, SessionClosed, UsageError
from muxado.wire import FORMATS
from tests import inside

from .pair import Pair
from .peer import Bench, data
from .wires import NOW, said, session, yamux


def test_its_repr_says_its_role_and_its_state() -> None:
    bench = Bench()
    bench.hear(data(3, syn=True))
    assert repr(bench.core) == "<CoreSession server open streams=1>"
    bench.core.close(bench.now)
    assert repr(Bench(client=True).core) == "<CoreSession client open streams=0>"
    assert "closing" in repr(bench.core)


# The wire of ALPN


@pytest.mark.parametrize("wire", ["muxado-v2", "muxado-v1"])
def test_the_protocol_that_tls_chose_is_the_wire(wire: str) -> None:
    core = session("auto")
    ended: list[int] = []
    core.table.watch(lambda stream: ended.append(stream.stream_id))
    core.agree(FORMATS[wire].rules.alpn)
    assert core.ledger.config.wire == wire
    stream = core.open()
    stream.reset(ErrorCode.STREAM_CANCELLED)
    assert ended == [stream.stream_id]  # who watched goes on watching


@pytest.mark.parametrize("protocol", [None, "h2"])
def test_another_protocol_leaves_the_wire_open(protocol: str | None) -> None:
    core = session("auto")
    core.agree(protocol)
    assert core.ledger.config.wire == "auto"
    core.receive_data(yamux(1, 1, 1), NOW)
    assert core.ledger.config.wire == "yamux"


def test_a_wire_that_is_known_is_not_changed_by_alpn() -> None:
    core = session("yamux")
    core.agree(FORMATS["muxado-v2"].rules.alpn)
    assert core.ledger.config.wire == "yamux"
    ended = session("auto")
    ended.close(NOW)
    ended.agree(FORMATS["muxado-v2"].rules.alpn)
    assert ended.ledger.config.wire == "auto"


def test_the_output_is_confirmed_on_the_wire_that_was_found_too() -> None:
    core = session("auto")
    core.confirm_output()
    core.receive_data(yamux(1, 1, 1), NOW)
    core.close(NOW)
    said(core)
    assert not inside.output_done(core)
    core.receive_data(yamux(2, 2, 0), NOW)
    assert inside.output_done(core)


# Pings


def test_a_ping_is_answered_once_its_number_is() -> None:
    pair = Pair()
    pair.run()
    number = pair.client.liveness.ping()
    assert not pair.client.liveness.pong(number)
    pair.run()
    assert pair.client.liveness.pong(number)


def test_a_ping_that_the_end_overtakes_fails() -> None:
    pair = Pair()
    pair.run()
    number = pair.client.liveness.ping()
    pair.client.close(pair.now)
    with pytest.raises(SessionClosed):
        pair.client.liveness.pong(number)
    with pytest.raises(SessionClosed):
        pair.client.liveness.ping()


# Input that waits


def test_held_is_the_name_by_which_older_programs_ask_for_paused() -> None:
    bench = Bench(Config(accept_backlog=1))
    bench.core.receive_data(data(3, syn=True) + data(5, syn=True), bench.now)
    assert bench.core.paused
    assert bench.core.held
    bench.core.resume(bench.now)
    assert not bench.core.held


# Limits


def test_raised_limits_let_more_in() -> None:
    bench = Bench(Config(max_incoming_streams=1, max_receive_memory=1000, initial_window=5000))
    bench.hear(data(3, syn=True), data(5, syn=True))
    assert bench.said() == [f"RST 5 {ErrorCode.STREAM_REFUSED:d}"]
    bench.core.raise_limits(2, 4000)
    bench.hear(data(7, bytes(3000), syn=True))
    assert bench.said() == []
    assert bench.core.stats().memory_held == 3000


def test_limits_are_not_lowered_and_must_be_possible() -> None:
    bench = Bench(Config(max_incoming_streams=10, max_receive_memory=1000))
    for streams, memory in ((9, 1000), (10, 999)):
        with pytest.raises(UsageError, match="not lowered"):
            bench.core.raise_limits(streams, memory)
    with pytest.raises(ConfigError):
        bench.core.raise_limits(-1, 1000)
    config = bench.core.ledger.config
    assert (config.max_incoming_streams, config.max_receive_memory) == (10, 1000)


def test_a_pool_bounds_raised_limits_too() -> None:
    pool = MemoryPool(2000, nullcontext())
    config = Config(max_receive_memory=1000, initial_window=5000)
    core = CoreSession(client=False, config=config, now=NOW, pool=pool)
    core.raise_limits(config.max_incoming_streams, 4000)
    core.receive_data(data(3, bytes(1900), syn=True) + data(5, bytes(200), syn=True), NOW)
    first, second = core.accept(), core.accept()
    assert first is not None
    assert first.unread() == 1900
    assert second is None  # its bytes went beyond the pool's
    assert core.stats().resets_sent == 1
