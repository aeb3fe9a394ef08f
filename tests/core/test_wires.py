"""What the other wires ask of a session: openings, acknowledgements, endings, and their traps."""

from __future__ import annotations

import struct

import pytest

from muxado.config import Config
from muxado.core import CLOSED, CoreStream
from muxado.errors import ErrorCode, PeerTimeout, ProtocolError, StreamReset, UsageError
from muxado.wire import FORMATS

from ..frames import read_frames
from .pair import Pair, byte_by_byte, whole
from .wires import NOW, said, session, smux, yamux

OTHERS = [name for name in FORMATS if name != "muxado-v2"]


# Every wire


@pytest.mark.parametrize("wire", FORMATS)
@pytest.mark.parametrize("cut", [whole, byte_by_byte])
def test_300_streams_are_echoed(wire: str, cut: object) -> None:
    pair = Pair(Config(wire=wire), cut=cut)  # type: ignore[arg-type]
    size = 300_000 if cut is whole else 300
    sent = {}
    for number in range(300):
        stream = pair.client.open()
        sent[stream] = bytes([number % 251]) * (size if number < 5 else 3)
        stream.write(sent[stream])
        stream.finish()
    back = dict.fromkeys(sent, b"")
    taken: list[CoreStream] = []
    while any(stream.state != CLOSED for stream in sent):
        pair.run()
        while (accepted := pair.server.accept()) is not None:
            taken.append(accepted)
        for stream in taken:
            while data := stream.read(1 << 16):
                stream.write(data)
            if stream.at_eof():
                stream.finish()
        for stream in sent:
            while data := stream.read(1 << 16):
                back[stream] += data
    assert back == sent
    pair.run()
    assert pair.client.table.live == pair.server.table.live == 0
    ids = [stream.stream_id for stream in taken]
    assert ids == sorted(ids)


@pytest.mark.parametrize("wire", FORMATS)
def test_a_close_is_clean_once_everything_has_arrived(wire: str) -> None:
    pair = Pair(Config(wire=wire))
    near = pair.client.open()
    near.write(b"all of it")
    near.finish()
    pair.run()
    far = pair.server.accept()
    assert far is not None
    pair.client.close(pair.now)
    pair.run()
    assert far.read(100) == b"all of it"
    far.finish()
    pair.run()
    pair.client.closing.end_output()
    pair.server.receive_eof(pair.now)
    assert pair.client.reason is not None
    assert pair.client.reason.clean
    assert pair.server.reason is not None
    assert pair.server.reason.clean


@pytest.mark.parametrize("wire", FORMATS)
def test_an_end_that_cuts_a_reader_off_is_not_clean(wire: str) -> None:
    pair = Pair(Config(wire=wire))
    near = pair.client.open()
    near.announce()
    pair.run()
    near.read_waiter = object()
    pair.client.receive_eof(pair.now)
    assert pair.client.reason is not None
    assert not pair.client.reason.clean


# Errors for what a wire can't do


def test_what_a_wire_can_not_do_says_so() -> None:
    stream = session("yamux").open()
    with pytest.raises(UsageError, match="carries no code"):
        stream.check_reset(403)
    stream.check_reset(ErrorCode.STREAM_CANCELLED)
    core = session("smux-v2")
    with pytest.raises(UsageError, match="no reset"):
        core.open().check_reset(ErrorCode.STREAM_CANCELLED)
    with pytest.raises(UsageError, match="no pings"):
        core.liveness.ping()
    with pytest.raises(UsageError, match="no GOAWAY"):
        core.go_away()
    with pytest.raises(UsageError, match="abort"):
        session("yamux").go_away(403)
    for wire in ("yamux", "smux-v2"):
        with pytest.raises(UsageError, match="no types"):
            session(wire).open(type=7)
    with pytest.raises(UsageError, match="extensions"):
        session("muxado-v1").open(type=0xFFFFFEFF)


# muxado v1

SYN_HEARTBEAT = bytes.fromhex("00080601 00000003 7fffffff fffffeff")


def test_v1_carries_type_and_priority() -> None:
    pair = Pair(Config(wire="muxado-v1"))
    near = pair.client.open(type=7, priority=5)
    low = pair.client.open(priority=-3)
    assert near.type == 7
    pair.run()
    far, other = pair.server.accept(), pair.server.accept()
    assert far is not None
    assert other is not None
    assert (far.type, far.priority, far.peer_priority) == (7, 5, 5)
    assert (other.type, other.priority, other.peer_priority) == (0, 0, 0)
    assert low.priority == -3


def test_v1_a_priority_beyond_ours_is_shown_as_it_is() -> None:
    core = session("muxado-v1")
    core.receive_data(FORMATS["muxado-v1"].encoder.open(3, 0, 1000), NOW)
    stream = core.accept()
    assert stream is not None
    assert (stream.priority, stream.peer_priority) == (7, 1000)


def test_v1_heartbeats_are_echoed_even_while_the_session_closes() -> None:
    core = session("muxado-v1", max_incoming_streams=0)
    core.receive_data(SYN_HEARTBEAT, NOW)
    assert core.accept() is None
    beat = bytes.fromhex("00040003 00000003 00000000")
    core.receive_data(beat, NOW)
    assert beat in said(core)
    stream = core.open()
    stream.write(b"not read yet")
    said(core)
    core.close(NOW)
    core.receive_data(beat, NOW)
    answer = said(core)
    assert beat in answer
    assert bytes.fromhex("0000010300000003") not in answer  # no FIN


def test_v1_the_end_waits_until_the_peer_has_read() -> None:
    core = session("muxado-v1", client=True)
    stream = core.open()
    stream.write(b"12345")
    stream.finish()
    core.close(NOW)
    said(core)
    assert core.closing.output_step() == 0
    core.receive_data(bytes.fromhex("00040004 00000003 00000005"), NOW)
    assert core.closing.output_step() != 0


def test_v1_the_end_that_waited_in_vain_is_not_clean() -> None:
    core = session("muxado-v1", client=True)
    core.open().write(b"12345")
    core.close(NOW)
    said(core)
    core.handle_timer(NOW + 5)
    assert core.reason is not None
    assert not core.reason.clean
    assert "had not read" in core.reason.message


def test_v1_ids_must_rise() -> None:
    core = session("muxado-v1")
    core.receive_data(bytes.fromhex("0000000100000005 0000000100000003"), NOW)
    with pytest.raises(ProtocolError, match="does not rise"):
        raise core.ledger.failure()


# yamux


def test_yamux_a_fin_is_a_frame_of_its_own_and_comes_once() -> None:
    core = session("yamux", client=True)
    stream = core.open()
    stream.write(b"data")
    stream.finish()
    stream.close()
    frames = yamux(1, 1, 1) + yamux(0, 0, 1, 4) + b"data" + yamux(0, 4, 1)
    assert said(core) == frames + yamux(2, 1, 0)  # a ping rides along


def test_yamux_a_stream_is_acknowledged_when_it_is_accepted() -> None:
    core = session("yamux")
    core.receive_data(yamux(1, 1, 1), NOW)
    assert yamux(1, 2, 1) not in said(core)
    core.accept()
    assert core.ledger.rules.opens_apart
    assert said(core).startswith(yamux(1, 2, 1))


def test_yamux_a_stream_that_waits_long_is_acknowledged_all_the_same() -> None:
    core = session("yamux", ping_interval=None)
    core.receive_data(yamux(1, 1, 1), NOW)
    said(core)
    assert core.next_deadline() <= NOW + 30
    core.handle_timer(NOW + 30)
    assert said(core) == yamux(1, 2, 1)
    core.accept()
    assert said(core) == b""


def test_yamux_only_so_many_streams_wait_to_be_acknowledged() -> None:
    core = session("yamux", client=True, ping_interval=None)
    streams = [core.open() for _ in range(300)]
    streams[-1].write(b"last")
    assert len(said(core)) >= 256 * 12
    assert said(core) == b""
    core.receive_data(yamux(1, 2, 1), NOW)
    assert said(core) == yamux(1, 1, 513)
    streams[1].reset(ErrorCode.STREAM_CANCELLED)  # that is one less too
    assert yamux(1, 1, 515) in said(core)


def test_yamux_pings_are_answered_with_their_value() -> None:
    core = session("yamux")
    core.receive_data(yamux(2, 1, 0, 0xCAFE), NOW)
    assert yamux(2, 2, 0, 0xCAFE) in said(core)


def test_yamux_pings_whose_answers_are_not_read_end_the_session() -> None:
    core = session("yamux")
    core.receive_data(yamux(2, 1, 0, 1) * 5000, NOW)
    assert core.reason is not None
    assert core.reason.code == ErrorCode.ENHANCE_YOUR_CALM


def test_yamux_a_goaway_with_an_error_ends_at_once() -> None:
    core = session("yamux", client=True)
    core.receive_data(yamux(3, 0, 0, 1), NOW)
    with pytest.raises(ProtocolError):
        raise core.ledger.failure()


@pytest.mark.parametrize("wire", ["yamux", "smux-v2"])
def test_a_peer_that_is_silent_about_a_stream_is_waited_for_so_long(wire: str) -> None:
    core = session(wire, client=True, ping_interval=None, stall_timeout=7.0)
    stream = core.open()
    stream.write(bytes(300_000))
    said(core)
    end = yamux(1, 4, 1) if wire == "yamux" else smux(1, 3)
    core.receive_data(end, NOW)
    core.handle_timer(NOW + 6.9)
    assert stream.state != CLOSED
    core.handle_timer(NOW + 7.0)
    with pytest.raises(StreamReset, match="stall_timeout") as caught:
        stream.write(b"more")
    assert caught.value.code == ErrorCode.WRITE_TIMEOUT


# smux


def test_smux_says_something_when_it_has_been_silent() -> None:
    core = session("smux-v2", client=True)
    now = NOW
    core.open()
    core.data_to_send(now, 1000)
    silent_since = now
    for _ in range(10):
        now += 1
        core.receive_data(smux(3, 0), now)  # the peer lives
        core.handle_timer(now)
        if core.data_to_send(now, 1000):
            silent_since = now
        assert now - silent_since <= 10
    assert silent_since > NOW


def test_smux_credit_is_a_total() -> None:
    core = session("smux-v2", client=True)
    stream = core.open()
    stream.write(bytes(600_000))
    assert sum(frame.length for frame in read_frames([said(core)], FORMATS["smux-v2"])) == 262144
    core.receive_data(smux(4, 3, struct.pack("<II", 100_000, 65536)), NOW)
    assert said(core) == b""
    core.receive_data(smux(4, 3, struct.pack("<II", 262144, 65536)), NOW)
    assert sum(frame.length for frame in read_frames([said(core)], FORMATS["smux-v2"])) == 65536
    core.receive_data(smux(4, 3, struct.pack("<II", 999_999, 65536)), NOW)
    assert core.reason is not None
    assert core.reason.code == ErrorCode.FLOW_CONTROL_ERROR


def test_smux_v1_lets_any_number_of_bytes_out_and_in_on_a_stream() -> None:
    core = session("smux-v1", client=True)
    stream = core.open()
    stream.write(bytes(3_000_000))
    out = b"".join(iter(lambda: said(core), b""))
    assert sum(frame.length for frame in read_frames([out], FORMATS["smux-v1"])) == 3_000_000
    core.receive_data(smux(2, 3, bytes(65535), version=1) * 50, NOW)
    assert stream.unread() == 50 * 65535
    while stream.read(1 << 20):
        assert said(core) == b""  # nothing is granted, as nothing was spent
    assert (stream.bytes_sent, stream.bytes_received) == (3_000_000, 50 * 65535)
    assert core.ledger.config.initial_window is None
    with pytest.raises(UsageError, match="absent"):
        Config(wire="smux-v1", initial_window=1 << 16)


def test_smux_a_second_syn_changes_nothing() -> None:
    core = session("smux-v2")
    core.receive_data(smux(0, 3) + smux(2, 3, b"data") + smux(0, 3), NOW)
    stream = core.accept()
    assert stream is not None
    assert stream.read(10) == b"data"
    assert core.accept() is None
    assert core.reason is None


# The wire of the client's first bytes


@pytest.mark.parametrize("wire", FORMATS)
@pytest.mark.parametrize("cut", [whole, byte_by_byte])
def test_a_server_takes_the_wire_of_its_client(wire: str, cut: object) -> None:
    config = Config(wire=wire)
    pair = Pair(config, Config(wire="auto"), cut=cut)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="first bytes"):
        pair.server.open()
    near = pair.client.open()
    near.write(b"hello")
    near.finish()
    pair.run()
    far = pair.server.accept()
    assert far is not None
    assert far.read(100) == b"hello"
    assert pair.server.ledger.config.wire == wire
    assert pair.server.ledger.config.initial_window == pair.client.ledger.config.initial_window
    back = pair.server.open()
    back.write(b"back")
    pair.run()
    accepted = pair.client.accept()
    assert accepted is not None
    assert accepted.read(10) == b"back"


def test_a_client_that_says_nothing_is_waited_for_so_long() -> None:
    core = session("auto", ping_timeout=9.0)
    now = NOW
    while core.reason is None and now < NOW + 60:
        now = max(core.next_deadline(), now + 0.001)
        core.handle_timer(now)
        assert core.data_to_send(now, 1000) == b""
    assert now - NOW < 10
    with pytest.raises(PeerTimeout):
        raise core.ledger.failure()


def test_a_client_of_no_known_wire_is_told_apart() -> None:
    core = session("auto")
    core.receive_data(b"\x03" * 8, NOW)
    with pytest.raises(ProtocolError, match="no wire that is known"):
        raise core.ledger.failure()
    other = session("auto")
    other.receive_data(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", NOW)
    with pytest.raises(ProtocolError, match="HTTP"):
        raise other.ledger.failure()


def test_a_client_must_say_its_wire() -> None:
    with pytest.raises(UsageError, match="for servers"):
        session("auto", client=True)


@pytest.mark.parametrize("wire", FORMATS)
def test_a_write_that_is_a_little_more_than_its_frames_hold_has_no_tiny_frame(wire: str) -> None:
    core = session(wire, client=True, ping_interval=None)
    stream = core.open()
    stream.write(bytes(65_536 + 4))
    stream.finish()
    sizes = [frame.length for frame in read_frames([said(core)], FORMATS[wire]) if frame.length]
    assert sum(sizes) == min(65_536 + 4, FORMATS[wire].rules.first_window)
    assert min(sizes) > 8000
