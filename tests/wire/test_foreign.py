"""Peers that speak something else are named; peers that speak muxado v2 never are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxado.config import Config
from muxado.core import CoreSession
from muxado.errors import ErrorCode, ProtocolError, SessionError
from muxado.wire import MUXADO_V2
from muxado.wire.codec import GO_AWAY
from muxado.wire.foreign import recognise
from tests import inside

from ..core.pair import Cut, byte_by_byte, whole
from ..frames import read_frames
from ..golden import Vector, vectors

# The registered methods, and two of protocols built on HTTP.
METHODS = (
    "ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DELETE GET HEAD LABEL LINK "
    "LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE OPTIONS "
    "ORDERPATCH PATCH POST PRI PROPFIND PROPPATCH PUT QUERY REBIND REPORT SEARCH TRACE "
    "UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL M-SEARCH "
    "NOTIFY"
)

CLIENT_HELLO = bytes.fromhex("16030102000100 01fc0303") + bytes(range(32))

OPENINGS: dict[str, tuple[bytes, str]] = {
    **{
        f"http-{method}": (f"{method} /x HTTP/1.1\r\n".encode(), "HTTP")
        for method in METHODS.split()
    },
    "http2-preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP"),
    "http-options-asterisk": (b"OPTIONS * HTTP/1.1\r\n", "HTTP"),
    "http-connect-authority": (b"CONNECT example.org:443 HTTP/1.1\r\n", "HTTP"),
    "http-propfind-absolute": (b"PROPFIND http://example.org/ HTTP/1.1\r\n", "HTTP"),
    "http-lock-absolute-tls": (b"LOCK https://example.org/ HTTP/1.1\r\n", "HTTP"),
    "http-response-1.0": (b"HTTP/1.0 400 Bad Request\r\n", "HTTP"),
    "http-response-1.1": (b"HTTP/1.1 502 Bad Gateway\r\n", "HTTP"),
    "tls-client-hello": (CLIENT_HELLO, "TLS"),
    "tls-client-hello-1.2": (b"\x16\x03\x03" + CLIENT_HELLO[3:], "TLS"),
    "tls-alert": (bytes.fromhex("15030300020228"), "TLS"),
    "tls-alert-ssl3": (bytes.fromhex("15030000020228"), "TLS"),
    "ssh": (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH"),
    "ssh-1.99": (b"SSH-1.99-Cisco-1.25\r\n", "SSH"),
    "proxy-v1-tcp4": (b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\n", "PROXY"),
    "proxy-v1-unknown": (b"PROXY UNKNOWN\r\n", "PROXY"),
    "proxy-v2": (bytes.fromhex("0d0a0d0a000d0a515549540a2111000c") + bytes(12), "PROXY"),
}

# The frames that a real peer may begin with.
FIRST_FRAMES = {
    "yamux": ("window-syn-open", "window-syn-open-1mib", "data-syn", "ping-syn", "goaway-"),
    "smux-v1": ("syn-client-first", "syn-server-first", "syn-max-id", "nop"),
    "smux-v2": ("syn-client-first", "syn-server-first", "syn-max-id", "nop"),
    "muxado-v1": ("syn-", "goaway-"),
}
NAMES = {"yamux": "yamux", "smux-v1": "smux v1", "smux-v2": "smux v2", "muxado-v1": "muxado v1"}


def is_opening(vector: Vector, protocol: str) -> bool:
    return vector.by_go and vector.name.startswith(FIRST_FRAMES[protocol])


OPENINGS |= {
    f"{protocol}-{vector.name}": (vector.wire, NAMES[protocol])
    for protocol in FIRST_FRAMES
    for vector in vectors(protocol)
    if is_opening(vector, protocol)
}

KNOWN_FIRST_BYTES = frozenset(b"\x00\x01\x02\x0d\x14\x15\x16ABCDEFGHIJKLMNOPQRSTUVWXYZ")

VALID = [v for v in vectors("muxado-v2") if v.valid and len(v.wire) < 1_000_000]


def session(client: bool) -> CoreSession:
    return CoreSession(client=client, config=Config(), now=0.0)


@pytest.mark.parametrize("opening", OPENINGS)
def test_an_opening_is_named(opening: str) -> None:
    data, name = OPENINGS[opening]
    message = recognise(data)
    assert name in message.split(":")[0].split(",")[0]


def test_the_golden_openings_are_there() -> None:
    for protocol, begins in FIRST_FRAMES.items():
        for begin in begins:
            assert any(key.startswith(f"{protocol}-{begin}") for key in OPENINGS)


@pytest.mark.parametrize("opening", [key for key in OPENINGS if not key.startswith("http")])
def test_the_first_8_bytes_are_enough(opening: str) -> None:
    data, _ = OPENINGS[opening]
    assert recognise(data[:8]) == recognise(data)


def test_the_remedy_is_named() -> None:
    assert "ssl=" in recognise(CLIENT_HELLO)
    assert "strip it" in recognise(b"PROXY TCP4 ")


@pytest.mark.parametrize("own", ["yamux", "smux v1", "smux v2", "muxado v1"])
def test_a_peer_of_muxado_v2_is_named_where_another_wire_is_spoken(own: str) -> None:
    wire = MUXADO_V2.encoder.data_header(3, 5, True, False) + b"hello"
    assert recognise(wire, own) == (
        f"the peer speaks muxado v2, not {own}: see Config(wire='muxado-v2')"
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        bytes(7),
        bytes(8),
        b"GET",
        b"\x16\x04\x00\x00\x00\x00\x00\x00",
        b"\x17\x03\x03\x00\x20\x00\x00\x00",
        b"SSL-",
        b"\x00\x05\x00\x01\x00\x00\x00\x03",
        b"\x03\x00\x00\x00\x03\x00\x00\x00",
    ],
    ids=repr,
)
def test_what_is_not_known_has_no_name(data: bytes) -> None:
    assert recognise(data) == ""


@pytest.mark.parametrize(
    "data",
    [
        b"get / HTTP/1.1\r\n",
        b"GETTING STARTED\r\n",
        b"220 mail.example.org ESMTP\r\n",
        b"+OK ready\r\n",
        b"PROXIES ",
    ],
    ids=repr,
)
def test_text_is_quoted(data: bytes) -> None:
    assert "text" in recognise(data)
    assert repr(data) in recognise(data)


@given(
    st.binary(max_size=64).filter(
        lambda data: data[:1] and data[0] not in KNOWN_FIRST_BYTES and max(data[:8]) > 126
    )
)
def test_random_bytes_have_no_name(data: bytes) -> None:
    assert recognise(data) == ""


@given(st.binary(max_size=64))
def test_any_bytes_can_be_asked_about(data: bytes) -> None:
    message = recognise(data)
    assert message == "" or message.startswith("the peer s")


# In a session


@pytest.mark.parametrize("client", [True, False], ids=["client", "server"])
@pytest.mark.parametrize("opening", OPENINGS)
def test_a_session_ends_with_the_name(opening: str, client: bool) -> None:
    """No GOAWAY is sent, which the peer could only misread."""
    data, name = OPENINGS[opening]
    core = session(client)
    core.receive_data(data, 1.0)
    core.receive_eof(2.0)
    assert core.reason is not None
    assert core.reason.message == recognise(data)
    assert name in core.reason.message
    assert core.reason.code == ErrorCode.PROTOCOL_ERROR
    assert isinstance(core.ledger.failure(), ProtocolError)
    assert inside.torn_down(core)
    assert core.data_to_send(3.0, 65536) == b""


@pytest.mark.parametrize("client", [True, False], ids=["client", "server"])
@pytest.mark.parametrize("cut", [whole, byte_by_byte])
@pytest.mark.parametrize("vector", VALID, ids=str)
def test_muxado_v2_is_never_taken_for_another_protocol(
    vector: Vector, cut: Cut, client: bool
) -> None:
    """A first frame may be out of place in this session, but then the peer is told so."""
    core = session(client)
    for piece in cut(vector.wire):
        core.receive_data(piece, 1.0)
    assert not inside.torn_down(core)
    sent = read_frames([core.data_to_send(2.0, 65536)])
    assert (core.reason is not None) == (GO_AWAY in [frame.kind for frame in sent])
    core.receive_eof(3.0)
    assert not inside.torn_down(core)


@pytest.mark.parametrize("client", [True, False], ids=["client", "server"])
@pytest.mark.parametrize("vector", VALID, ids=str)
def test_a_first_frame_that_is_cut_off_is_not_another_protocol(
    vector: Vector, client: bool
) -> None:
    for length in range(min(len(vector.wire), 40)):
        core = session(client)
        core.receive_data(vector.wire[:length], 1.0)
        core.receive_eof(2.0)
        assert core.reason is not None
        assert isinstance(core.ledger.failure(), SessionError)
        assert not inside.torn_down(core), f"cut off after {length} bytes"
