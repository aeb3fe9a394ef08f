"""Something other than muxado: the session ends soon, holds little, and its error says why."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from muxado.errors import ErrorCode, MuxadoError
from tests import inside

from ..core.pair import Cut, byte_by_byte, whole
from ..core.peer import Bench
from ..golden import vectors

# All of IANA's registry of HTTP methods, and those that UPnP has besides.
METHODS = (
    "ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DELETE GET HEAD LABEL LINK LOCK MERGE"
    " MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE OPTIONS ORDERPATCH PATCH POST PRI"
    " PROPFIND PROPPATCH PUT QUERY REBIND REPORT SEARCH TRACE UNBIND UNCHECKOUT UNLINK UNLOCK"
    " UPDATE UPDATEREDIRECTREF VERSION-CONTROL M-SEARCH NOTIFY SUBSCRIBE UNSUBSCRIBE"
)
HEADERS = b"Host: example.org\r\nUser-Agent: test\r\nContent-Length: 5\r\n\r\nhello"


def hello(length: int) -> bytes:
    """Return a TLS ClientHello whose record has so many bytes."""
    body = b"\x01" + (length - 4).to_bytes(3, "big") + b"\x03\x03"
    return b"\x16\x03\x01" + length.to_bytes(2, "big") + body + bytes(length - len(body))


# Post-quantum keys, many tickets or padding make long ones; from 4 KiB on the record's length
# reads as a DATA frame.
HELLOS = [47, 200, 517, 1700, 4095, 4096, 4097, 4321, 5000, 6000, 8191, 8192, 12_345, 16_384]

GARBAGE: dict[str, tuple[bytes, str]] = {
    **{f"http-{m}": (f"{m} /x HTTP/1.1\r\n".encode() + HEADERS, "HTTP") for m in METHODS.split()},
    "http-answer": (b"HTTP/1.1 502 Bad Gateway\r\n" + HEADERS, "HTTP"),
    **{f"tls-hello-{length}": (hello(length), "TLS") for length in HELLOS},
    "ssh": (b"SSH-2.0-OpenSSH_9.6\r\n" + bytes(300), "SSH"),
    "proxy-v1": (b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\n", "PROXY"),
    "proxy-v2": (bytes.fromhex("0d0a0d0a000d0a515549540a2111000c") + bytes(12), "PROXY"),
    "yamux": (b"".join(v.wire for v in vectors("yamux") if v.name.startswith("ping-syn")), "yamux"),
    "yamux-window": (bytes.fromhex("000100010000000100000000"), "yamux"),
    "smux": (bytes.fromhex("0100000003000000") + bytes(200), "smux"),
    "muxado-v1": (
        next(v.wire for v in vectors("muxado-v1") if v.by_go and v.name.startswith("syn-")),
        "muxado v1",
    ),
}


def first_line(wire: bytes) -> Iterator[bytes]:
    """Cut everywhere but in the first 24 bytes: HTTP's long methods need more than 8."""
    yield wire[:24]
    yield from byte_by_byte(wire[24:])


each_role = pytest.mark.parametrize("client", [True, False], ids=["client", "server"])


@each_role
@pytest.mark.parametrize("cut", [whole, first_line])
@pytest.mark.parametrize("name", GARBAGE)
def test_another_protocol_is_named(name: str, cut: Cut, client: bool) -> None:
    wire, protocol = GARBAGE[name]
    bench = Bench(client=client)
    waiter = object()
    stream = bench.core.open()
    stream.read_waiter = waiter
    for piece in cut(wire):
        bench.core.receive_data(piece, bench.now)
    core = bench.core
    assert core.reason is not None, "it ends at once, not at the end of the connection"
    assert core.reason.code == ErrorCode.PROTOCOL_ERROR
    assert protocol in core.reason.message
    assert inside.torn_down(core)
    assert core.take_wakes() == [waiter]
    with pytest.raises(MuxadoError, match=protocol):
        stream.read(1)
    assert bench.said() == [], "a GOAWAY would only be misread"
    assert inside.unread(core) == 0


@each_role
def test_of_random_bytes_most_end_the_session_at_once_and_all_in_time(client: bool) -> None:
    at_once = 0
    for seed in range(300):
        rng = random.Random(seed)
        bench = Bench(client=client)
        core = bench.core
        for _ in range(8):
            core.receive_data(rng.randbytes(500), bench.now)
        at_once += core.reason is not None
        bench.flush()
        bench.pass_time(15 + 20 + 5.001)  # asked, given up, closed
        assert core.reason is not None
        assert core.reason.code in (
            ErrorCode.PROTOCOL_ERROR,
            ErrorCode.FRAME_SIZE_ERROR,
            ErrorCode.UNKNOWN,  # PeerTimeout: they began like a long frame for an unknown stream
        )
        assert inside.torn_down(core)
        assert inside.unread(core) == 0
        assert not inside.streams(core)
    assert at_once >= 270


@each_role
@pytest.mark.parametrize("byte", range(256))
def test_the_same_byte_again_and_again(byte: int, client: bool) -> None:
    bench = Bench(client=client)
    for _ in range(20):
        bench.core.receive_data(bytes([byte]) * 5000, bench.now)
    bench.flush()
    core = bench.core
    if 0x10 <= byte <= 0x1F and core.reason is None:
        # Read as a long DATA frame for a stream that isn't there, or too long for a new one.
        assert not inside.streams(core)
        assert len(inside.recently_reset_ids(core)) <= 1
    else:
        assert core.reason is not None
        assert not core.reason.clean
    assert inside.unread(core) == 0
