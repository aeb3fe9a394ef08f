"""The PROXY protocol: its headers cut anywhere, and servers of every front end behind a proxy."""

from __future__ import annotations

import itertools
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import muxado
import muxado.carriers.websockets.sync
import muxado.sync
from muxado.proxy_protocol import MOST_HEADER, ProxyHeader, TrustedProxies
from tests.certificates import Tls
from tests.servers import free_port, program, running
from tests.serving import FRONT_ENDS, PATIENCE, WEBSOCKETS, Serve, Server, until

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
LOOPBACK = ["127.0.0.0/8"]


def second(family: int, addresses: bytes, command: int = 1, more: bytes = b"") -> bytes:
    """Pack a header of version 2."""
    length = len(addresses + more).to_bytes(2, "big")
    return SIGNATURE + bytes([0x20 | command, family]) + length + addresses + more


IPV4 = bytes([192, 0, 2, 7, 198, 51, 100, 9]) + bytes.fromhex("dd d5 01 bb")
IPV6 = bytes.fromhex("20010db8" + 22 * "0" + "07" + "20010db8" + 22 * "0" + "09" + "ddd501bb")
TLV = bytes.fromhex("03 0004 11223344 04 0002 0000")

HEADERS: dict[str, tuple[bytes, Any, Any]] = {
    "v1 tcp4": (
        b"PROXY TCP4 192.0.2.7 198.51.100.9 56789 443\r\n",
        ("192.0.2.7", 56789),
        ("198.51.100.9", 443),
    ),
    "v1 tcp6": (
        b"PROXY TCP6 2001:db8::7 2001:db8::9 56789 443\r\n",
        ("2001:db8::7", 56789, 0, 0),
        ("2001:db8::9", 443, 0, 0),
    ),
    "v1 shortest": (b"PROXY UNKNOWN\r\n", None, None),
    "v1 longest": (
        b"PROXY UNKNOWN " + b" ".join([b"f" * 4 + 7 * b":ffff"] * 2) + b" 65535 65535\r\n",
        None,
        None,
    ),
    "v2 tcp4": (second(0x11, IPV4), ("192.0.2.7", 56789), ("198.51.100.9", 443)),
    "v2 tcp4 and more": (
        second(0x11, IPV4, more=TLV),
        ("192.0.2.7", 56789),
        ("198.51.100.9", 443),
    ),
    "v2 tcp6": (
        second(0x21, IPV6),
        ("2001:db8::7", 56789, 0, 0),
        ("2001:db8::9", 443, 0, 0),
    ),
    "v2 local": (second(0x11, IPV4, command=0), None, None),
    "v2 unknown": (second(0, b""), None, None),
    "v2 unix": (second(0x31, bytes(216)), None, None),
    "v2 longest": (
        second(0, bytes(MOST_HEADER - 16)),
        None,
        None,
    ),
}

WRONG = {
    "HTTP": b"GET / HTTP/1.1\r\n",
    "nearly v1": b"PROXI TCP4 192.0.2.7",
    "nearly v2": SIGNATURE[:-1] + b"\r\x21\x11\x00\x0c",
    "family": b"PROXY TCP5 192.0.2.7 198.51.100.9 56789 443\r\n",
    "no family": b"PROXY  192.0.2.7 198.51.100.9 56789 443\r\n",
    "families mixed": b"PROXY TCP4 2001:db8::7 198.51.100.9 56789 443\r\n",
    "missing word": b"PROXY TCP4 192.0.2.7 198.51.100.9 56789\r\n",
    "one word more": b"PROXY TCP4 192.0.2.7 198.51.100.9 56789 443 1\r\n",
    "large port": b"PROXY TCP4 192.0.2.7 198.51.100.9 65536 443\r\n",
    "signed port": b"PROXY TCP4 192.0.2.7 198.51.100.9 +5678 443\r\n",
    "port with a zero": b"PROXY TCP4 192.0.2.7 198.51.100.9 05678 443\r\n",
    "port with a bar": b"PROXY TCP4 192.0.2.7 198.51.100.9 5_678 443\r\n",
    "short address": b"PROXY TCP4 192.0.7 198.51.100.9 56789 443\r\n",
    "no ASCII": b"PROXY TCP4 192.0.2.\xb2 198.51.100.9 56789 443\r\n",
    "no end": b"PROXY UNKNOWN " + b"x" * 93,
    "command": second(0x11, IPV4, command=2),
    "version": SIGNATURE + bytes.fromhex("11 11 000c") + IPV4,
    "too short for tcp4": second(0x11, IPV4[:-1]),
    "too short for tcp6": second(0x21, IPV4),
    "too long": second(0, bytes(MOST_HEADER - 15)),
}


def read(data: bytes, most: int) -> tuple[ProxyHeader, bytes]:
    """Feed a header in pieces of at most so many bytes; return it, and what it left."""
    header = ProxyHeader()
    while header.wanted:
        count = min(header.wanted, most)
        header.feed(data[:count])
        data = data[count:]
    return header, data


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_is_read_whole_in_pieces_of_any_size_and_nothing_behind_it(name: str) -> None:
    data, source, destination = HEADERS[name]
    for most in (*range(1, len(data) + 1), 1 << 16) if len(data) < 300 else (1, 7, 1 << 16):
        header, rest = read(data + b"\r\nPROXY", most)
        assert (header.source, header.destination) == (source, destination)
        assert rest == b"\r\nPROXY"


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_cut_anywhere_is_an_early_end(name: str) -> None:
    data = HEADERS[name][0]
    for end in range(len(data)):
        with pytest.raises(EOFError, match="before its PROXY header was whole"):
            read(data[:end], 1 << 16)


@pytest.mark.parametrize(("name", "most"), [*itertools.product(WRONG, (1, 1 << 16))])
def test_what_is_no_header_is_an_error(name: str, most: int) -> None:
    with pytest.raises(muxado.ProtocolError, match="PROXY"):
        read(WRONG[name] + bytes(64), most)


@pytest.mark.parametrize(
    "networks", ["10.0.0.0/8", [], ["10.0.0.1/8"], ["proxy.example"], [8], 8, [""]]
)
def test_what_is_no_list_of_networks_is_a_usage_error(networks: Any) -> None:
    with pytest.raises(muxado.UsageError, match="proxy_protocol="):
        TrustedProxies(networks)
    with pytest.raises(muxado.UsageError, match="proxy_protocol="):
        muxado.serve(print, "127.0.0.1", 0, proxy_protocol=networks)  # type: ignore[arg-type]
    with pytest.raises(muxado.UsageError, match="proxy_protocol="):
        muxado.sync.listen("127.0.0.1", 0, proxy_protocol=networks)


class Peer:
    """The look of a socket from somewhere."""

    def __init__(self, family: int, address: Any) -> None:
        self.family = family
        self.address = address

    def getpeername(self) -> Any:
        return self.address


@pytest.mark.parametrize(
    ("networks", "host", "believed"),
    [
        (["10.0.0.0/8"], "10.1.2.3", True),
        (["10.0.0.0/8"], "11.1.2.3", False),
        (["10.0.0.0/8"], "::ffff:10.1.2.3", True),
        (["10.0.0.0/8"], "::ffff:11.1.2.3", False),
        (["10.0.0.0/8"], "2001:db8::1", False),
        (["2001:db8::/32", "192.0.2.1"], "2001:db8::1", True),
        (["2001:db8::/32", "192.0.2.1"], "192.0.2.1", True),
        (["fe80::/10"], "fe80::1%eth0", True),
        (["unix"], "10.1.2.3", False),
        (["10.0.0.0/8"], "", False),
        (["unix"], "", True),
    ],
)
def test_only_connections_from_the_networks_are_believed(
    networks: list[str], host: str, believed: bool
) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET if host else socket.AF_UNIX
    peer = Peer(family, (host, 1) if host else "")
    if believed:
        TrustedProxies(networks).check(peer)
    else:
        with pytest.raises(muxado.ProtocolError, match="none of the networks"):
            TrustedProxies(networks).check(peer)


# Servers


@pytest.fixture(params=FRONT_ENDS.values(), ids=list(FRONT_ENDS))
def serve(request: pytest.FixtureRequest) -> Any:
    return request.param


@contextmanager
def through(address: Any, header: bytes, tls: Tls | None = None) -> Iterator[muxado.sync.Session]:
    """Connect as a proxy does: the header, byte by byte, and then what the client says."""
    with socket.create_connection(address[:2]) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in header:
            sock.sendall(bytes([byte]))
        secured = sock
        if tls is not None:
            secured = tls.client.wrap_socket(sock, server_hostname="localhost")
        with muxado.sync.client(secured) as session:
            yield session


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("name", ["v1 tcp4", "v1 tcp6", "v2 tcp4 and more", "v2 tcp6"])
def test_the_sessions_address_is_the_clients(
    serve: Serve, name: str, secured: bool, tls: Tls
) -> None:
    header, source, destination = HEADERS[name]
    options: Any = {"ssl": tls.server} if secured else {}
    with (
        serve(proxy_protocol=LOOPBACK, **options) as server,
        through(server.addresses[0], header, tls if secured else None) as client,
    ):
        client.ping(PATIENCE)
        until(lambda: bool(server.sessions))
        (session,) = server.sessions
        assert session.remote_address == source
        assert session.get_extra_info("peername") == source
        assert session.get_extra_info("proxy_header").destination == destination
        assert session.get_extra_info("sockname") == server.addresses[0]
        assert repr(source) in repr(session)
        (snapshot,) = (each for each in muxado.sessions() if each.role == "server")
        assert snapshot.remote_address == source


@pytest.mark.parametrize("name", ["v1 shortest", "v2 local"])
def test_a_connection_of_the_proxys_own_keeps_its_address(serve: Serve, name: str) -> None:
    with (
        serve(proxy_protocol=LOOPBACK) as server,
        through(server.addresses[0], HEADERS[name][0]) as client,
    ):
        client.ping(PATIENCE)
        until(lambda: bool(server.sessions))
        assert server.sessions[0].remote_address == client.local_address


@pytest.mark.parametrize(
    ("networks", "data"),
    [
        (["192.0.2.0/24"], HEADERS["v2 tcp4"][0]),
        (["192.0.2.0/24"], b""),
        (LOOPBACK, WRONG["HTTP"]),
        (LOOPBACK, WRONG["family"]),
        (LOOPBACK, b"\x00\x00\x00\x30\x00\x00\x00\x00"),  # a frame at once
    ],
    ids=["spoofed", "not from the proxy", "HTTP", "wrong header", "no header"],
)
def test_what_is_not_from_a_proxy_that_is_believed_is_refused(
    serve: Serve, networks: list[str], data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    check_refused(serve, networks, data, caplog)


def check_refused(
    serve: Serve, networks: list[str], data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Check that a connection that begins so is closed, and told of in the log."""
    with (
        caplog.at_level(logging.INFO),
        serve(proxy_protocol=networks) as server,
        socket.create_connection(server.addresses[0][:2]) as sock,
    ):
        sock.settimeout(PATIENCE)
        sock.sendall(data)
        with suppress(ConnectionResetError):
            assert sock.recv(100) == b""
        until(lambda: server.stats().handshakes_failed == 1)
        assert server.stats().sessions_accepted == 0
    assert "PROXY" in caplog.text


def test_a_proxy_that_hangs_up_harms_no_other(serve: Serve) -> None:
    header = HEADERS["v2 tcp4"][0]
    with serve(proxy_protocol=LOOPBACK) as server:
        for end in (0, 1, 15, 16, len(header) - 1):
            with socket.create_connection(server.addresses[0][:2]) as sock:
                sock.sendall(header[:end])
        until(lambda: server.stats().handshakes_failed == 5)
        with through(server.addresses[0], header) as client:
            client.ping(PATIENCE)


@pytest.mark.parametrize("said", [b"", HEADERS["v2 tcp4"][0][:-1]], ids=["nothing", "a part"])
def test_a_proxy_that_says_nothing_is_given_up_in_the_handshake_s_time(
    serve: Serve, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("asyncio", "sync", "trio"):
        monkeypatch.setattr(import_module(f"muxado.{name}.acceptor"), "HANDSHAKE_TIMEOUT", 0.2)
    with (
        serve(proxy_protocol=LOOPBACK) as server,
        socket.create_connection(server.addresses[0][:2]) as sock,
    ):
        sock.settimeout(PATIENCE)
        sock.sendall(said)
        with suppress(ConnectionResetError):
            assert sock.recv(100) == b""
        assert server.stats().sessions_accepted == 0


# A real one

HAPROXY = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen front
    bind 127.0.0.1:{port}
    server one 127.0.0.1:{backend} {sends}
"""


def addresses(server: Server) -> list[Any]:
    """Return the peers that a server sees."""
    return [session.remote_address for session in server.sessions]


@contextmanager
def haproxy(folder: Path, backend: int, sends: str) -> Iterator[int]:
    """Run HAProxy before a server; give its port."""
    port, config = free_port(), folder / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=port, backend=backend, sends=sends))
    with running(port, program("haproxy"), "-db", "-q", "-f", str(config)):
        yield port


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("sends", ["send-proxy", "send-proxy-v2"])
def test_behind_haproxy_the_address_is_the_clients(
    serve: Serve, sends: str, secured: bool, tls: Tls, tmp_path: Path
) -> None:
    server_options: Any = {"ssl": tls.server} if secured else {}
    options: Any = {"ssl": tls.client, "server_hostname": "localhost"} if secured else {}
    with (
        serve(proxy_protocol=LOOPBACK, **server_options) as server,
        haproxy(tmp_path, server.addresses[0][1], sends) as port,
        muxado.sync.connect("127.0.0.1", port, **options) as client,
    ):
        check_behind(server, client, port, secured)


def check_behind(server: Server, client: muxado.sync.Session, port: int, secured: bool) -> None:
    """Check that a server behind HAProxy knows its client."""
    client.ping(PATIENCE)
    until(lambda: client.local_address in addresses(server))
    found = server.sessions[addresses(server).index(client.local_address)]
    assert found.get_extra_info("proxy_header").destination == ("127.0.0.1", port)
    if secured:
        assert found.get_extra_info("cipher")


# Servers of WebSockets


@pytest.fixture(params=WEBSOCKETS.values(), ids=list(WEBSOCKETS))
def serve_websockets(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.mark.parametrize("secured", [False, True], ids=["ws", "wss"])
@pytest.mark.parametrize("sends", ["send-proxy", "send-proxy-v2"])
def test_a_server_of_websockets_behind_haproxy_knows_its_client(
    serve_websockets: Serve, sends: str, secured: bool, tls: Tls, tmp_path: Path
) -> None:
    server_options: Any = {"ssl": tls.server} if secured else {}
    scheme, context = ("wss", tls.client) if secured else ("ws", None)
    with (
        serve_websockets(proxy_protocol=LOOPBACK, **server_options) as server,
        haproxy(tmp_path, server.addresses[0][1], sends) as port,
        muxado.carriers.websockets.sync.connect(
            f"{scheme}://localhost:{port}/mux", ssl=context
        ) as client,
    ):
        check_behind(server, client, port, secured)


@pytest.mark.parametrize(
    ("networks", "data"),
    [
        (["192.0.2.0/24"], HEADERS["v1 tcp4"][0]),
        (["192.0.2.0/24"], HEADERS["v2 tcp4"][0]),
        (LOOPBACK, b"GET /mux HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n"),
    ],
    ids=["spoofed v1", "spoofed v2", "no header"],
)
def test_a_server_of_websockets_refuses_what_is_not_from_its_proxy(
    serve_websockets: Serve,
    networks: list[str],
    data: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    check_refused(serve_websockets, networks, data, caplog)
