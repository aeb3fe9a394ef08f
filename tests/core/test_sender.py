"""The orderly end of the output, which a ping's answer may have to confirm."""

from __future__ import annotations

from muxado.config import Config
from muxado.wire import MUXADO_V2
from tests import inside

from .pair import Pair, drain


def closing_pair(config: Config | None = None) -> Pair:
    pair = Pair(config)
    pair.client.confirm_output()
    return pair


def test_the_output_is_done_once_the_peer_has_confirmed_it() -> None:
    pair = closing_pair()
    near, far = pair.open_pair()
    near.write(b"last words")
    pair.client.close(pair.now)
    assert pair.carry(pair.client, pair.server)
    assert not inside.output_done(pair.client)
    assert pair.carry(pair.server, pair.client)
    assert inside.output_done(pair.client)
    assert drain(far) == b"last words"


def test_what_waits_for_credit_is_confirmed_too() -> None:
    pair = closing_pair(Config(initial_window=1000, max_window=1000))
    near, far = pair.open_pair()
    near.write(b"." * 2500)
    pair.client.close(pair.now)
    arrived = b""
    while len(arrived) < 2500:
        pair.run()
        assert inside.output_done(pair.client) == (len(arrived) + far.unread() == 2500)
        arrived += drain(far)
    assert arrived == b"." * 2500


def test_an_earlier_ping_confirms_nothing() -> None:
    pair = closing_pair()
    pair.run()
    pair.client.liveness.ping()
    assert pair.carry(pair.client, pair.server)
    pair.client.open().write(b"after the ping")
    pair.client.close(pair.now)
    pair.carry(pair.client, pair.server)
    assert pair.carry(pair.server, pair.client)  # the answer to the first
    assert not inside.output_done(pair.client)
    pair.run()
    assert inside.output_done(pair.client)


def test_a_session_that_carried_nothing_is_confirmed_as_well() -> None:
    pair = closing_pair()
    pair.client.close(pair.now)
    assert not inside.output_done(pair.client)
    pair.run()
    assert inside.output_done(pair.client)


def test_the_end_of_the_input_confirms_as_much_as_will_ever_be() -> None:
    pair = closing_pair()
    pair.client.close(pair.now)
    pair.carry(pair.client, pair.server)
    assert not inside.output_done(pair.client)
    pair.client.receive_eof(pair.now)
    assert inside.output_done(pair.client)


def test_a_peer_that_confirms_nothing_costs_no_more_than_the_timeout() -> None:
    pair = closing_pair(Config(close_timeout=3.0))
    pair.client.close(pair.now)
    pair.client.data_to_send(pair.now, 65536)
    assert pair.client.next_deadline() == pair.now + 3.0
    pair.client.handle_timer(pair.now + 3.0)
    assert inside.torn_down(pair.client)


def test_an_abort_asks_for_nothing() -> None:
    pair = closing_pair()
    pair.client.abort(2, pair.now)
    pair.client.data_to_send(pair.now, 65536)
    assert inside.output_done(pair.client)


def test_a_peer_that_can_not_be_pinged_is_not_asked() -> None:
    pair = closing_pair()
    inside.liveness(pair.client).turn_off()
    pair.client.close(pair.now)
    pair.client.data_to_send(pair.now, 65536)
    assert inside.output_done(pair.client)


def test_what_comes_after_the_end_of_the_output_is_thrown_away() -> None:
    pair = Pair()
    pair.client.open().write(b"last words")
    pair.client.close(pair.now)
    assert pair.carry(pair.client, pair.server)
    assert inside.output_done(pair.client)
    pair.client.closing.end_output()
    # More than answers are kept for, and more than there is room for.
    for stream_id in range(2, 20_000, 2):
        opening = MUXADO_V2.encoder.data_header(stream_id, 1000, True, False)
        pair.client.receive_data(opening + bytes(1000), pair.now)
    assert not inside.pending(pair.client)
    assert inside.output_done(pair.client)
    assert not inside.torn_down(pair.client)
    assert pair.client.stats().memory_held == 0
