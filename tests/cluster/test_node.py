"""Servers of one fleet, on real connections with mutual TLS."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

import muxado
from muxado.cluster import (
    Claim,
    Denied,
    Header,
    HeaderError,
    Member,
    MemoryDirectory,
    NameAway,
    NameUnknown,
    Node,
    Place,
    Refused,
    Route,
    Verdict,
    join,
    read_header,
)
from muxado.cluster.credentials import expiry_of
from tests.certificates import Tls
from tests.cluster.fleets import Fleet, ask, echo, fleet_of, peer_tls, until
from tests.patience import patience

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_tasks_left")]


@pytest.fixture
async def fleet(no_tasks_left: None, tmp_path: Path) -> AsyncIterator[Fleet]:
    """Three servers."""
    async with fleet_of(tmp_path, 3, grace=patience(5)) as fleet:
        yield fleet


async def test_every_server_reaches_a_name(fleet: Fleet) -> None:
    async with fleet.member("web-1", [0]), fleet.member("web-2", [1]):
        for node in fleet.nodes:
            for name in ("web-1", "web-2"):
                assert await ask(await node.open(name, "echo"), b"hello") == b"hello"
        stats = [node.stats() for node in fleet.nodes]
        assert [each.registered for each in stats] == [1, 1, 0]
        assert [each.opened_here for each in stats] == [1, 1, 0]
        assert [each.opened_there for each in stats] == [1, 1, 2]
        assert [each.passed_on for each in stats] == [2, 2, 0]
        # A route that was right is not looked up again.
        before = stats[2].look_ups
        await ask(await fleet.nodes[2].open("web-1"), b"again")
        assert fleet.nodes[2].stats().look_ups == before


async def test_bytes_and_ends_go_through_two_hops_unchanged(fleet: Fleet) -> None:
    data = random.Random(1).randbytes(3_000_000)

    async def digest(stream: muxado.Stream, header: Header) -> None:
        got = await stream.read()  # to the half-close
        await stream.write(hashlib.sha256(got).digest() + got)

    async with fleet.member("web-1", [0], digest):
        answers = await asyncio.gather(
            *[ask(await fleet.nodes[1].open("web-1"), data[n:]) for n in range(3)]
        )
    for number, answer in enumerate(answers):
        assert answer[:32] == hashlib.sha256(data[number:]).digest()
        assert answer[32:] == data[number:]


async def test_a_reset_stays_a_reset_either_way(fleet: Fleet) -> None:
    heard: asyncio.Queue[int | None] = asyncio.Queue()

    async def reset(stream: muxado.Stream, header: Header) -> None:
        if header.service == "resets":
            stream.reset(77)
        else:
            await stream.write(b"here")
            heard.put_nowait(await stream.wait_reset())

    async with fleet.member("web-1", [0], reset):
        for node in fleet.nodes[:2]:
            stream = await node.open("web-1", "resets")
            with pytest.raises(muxado.StreamReset) as caught:
                await stream.read()
            assert caught.value.code == 77
            stream = await node.open("web-1", "waits")
            assert await stream.read(4) == b"here"
            stream.reset(78)
            assert await heard.get() == 78


async def test_the_session_is_told_who_asks_and_how_long_it_waits(fleet: Fleet) -> None:
    told: asyncio.Queue[Header] = asyncio.Queue()

    async def note(stream: muxado.Stream, header: Header) -> None:
        told.put_nowait(header)

    async with fleet.member("web-1", [0], note):
        for hop, node in enumerate(fleet.nodes[:2]):
            stream = await node.open(
                "web-1", "http", timeout=patience(9), origin="192.0.2.9:5", identity="alice"
            )
            header = await told.get()
            assert (header.service, header.name, header.hop) == ("http", "web-1", hop)
            assert (header.origin, header.identity) == ("192.0.2.9:5", "alice")
            assert header.remaining is not None
            assert 0 < header.remaining <= patience(9)
            stream.close()


async def test_an_unknown_name_is_said_at_once(fleet: Fleet) -> None:
    with pytest.raises(NameUnknown, match="no session has the name web-9"):
        await fleet.nodes[0].open("web-9")
    assert fleet.nodes[0].stats().look_ups == 1
    with pytest.raises(muxado.UsageError):
        await fleet.nodes[0].open("No Name")


async def test_what_a_session_does_not_have_or_give_is_said(tmp_path: Path) -> None:
    def allow(header: Header, registration: object) -> bool:
        return header.identity != "mallory"

    async with (
        fleet_of(tmp_path, 2, allow=allow) as fleet,
        fleet.member("web-1", [0], services=["http"]),
    ):
        for node in fleet.nodes:
            with pytest.raises(NameUnknown, match="no service 'ssh'"):
                await node.open("web-1", "ssh")
            with pytest.raises(Refused):
                await node.open("web-1", "http", identity="mallory")
            assert await ask(await node.open("web-1", "http", identity="alice"), b"x") == b"x"


async def test_a_session_without_headers_gets_the_bytes_alone(fleet: Fleet) -> None:
    got: asyncio.Queue[bytes] = asyncio.Queue()

    async def serve(stream: muxado.Stream) -> None:
        got.put_nowait(await stream.read())

    async def take(session: muxado.Session) -> None:
        await fleet.nodes[0].register("plain", session, headers=False)
        await session.wait_closed()

    async with (
        muxado.serve(take, "127.0.0.1", 0) as server,
        muxado.connect("127.0.0.1", server.addresses[0][1]) as session,
    ):
        serving = asyncio.create_task(session.serve(serve))
        await until(lambda: bool(fleet.nodes[0].registrations))
        for node in fleet.nodes:
            await ask(await node.open("plain"), b"as it is")
            assert await got.get() == b"as it is"
        session.close()
        await serving


# Routes that are wrong


async def test_a_route_is_used_until_it_is_refuted(fleet: Fleet) -> None:
    a, b, c = fleet.nodes
    async with fleet.member("web-1", [0], services=["http"]):
        await ask(await c.open("web-1", "http"), b"x")
        look_ups = c.stats().look_ups
        # Another session of the name comes to another server.
        async with fleet.member("web-1", [1]):
            assert a.stats().registered == 0
            assert b.stats().registered == 1
            assert await ask(await c.open("web-1", "http"), b"moved") == b"moved"
            assert (c.stats().refuted, c.stats().look_ups) == (1, look_ups + 1)


async def test_the_address_of_a_server_that_is_another_one_now_is_noticed(
    fleet: Fleet, tmp_path: Path
) -> None:
    a, b = fleet.nodes[:2]
    stale = Route(Place("0123456789abcdef", b.place.address), 2**50)
    ghost = MemoryDirectory(fleet.engine)
    await ghost.start(stale.place, lost=print, returned=print)
    claim = await ghost.claim("web-1")
    opening = asyncio.create_task(a.open("web-1", timeout=None))
    await until(lambda: a.stats().refuted > 1)
    assert not opening.done()  # it is away, and may come back
    await ghost.release("web-1", claim.epoch)
    async with fleet.member("web-1", [1]):
        assert await ask(await opening, b"x") == b"x"


async def test_a_server_that_is_gone_costs_one_look_up(fleet: Fleet, tmp_path: Path) -> None:
    gone = Place("gone", f"127.0.0.1:{unused_port()}")
    ghost = MemoryDirectory(fleet.engine)
    await ghost.start(gone, lost=print, returned=print)
    await ghost.claim("web-1")
    opening = asyncio.create_task(fleet.nodes[0].open("web-1", timeout=None))
    await until(lambda: fleet.nodes[0].stats().refuted > 0)
    async with fleet.member("web-1", [1]):
        assert await ask(await opening, b"x") == b"x"


async def test_a_name_that_stays_away_is_said_after_the_grace(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, 2, grace=0.3) as fleet:
        async with fleet.member("web-1", [0]) as member:
            await ask(await fleet.nodes[1].open("web-1"), b"x")
            (await member.connected()).abort()
            member.dialer.close()
            await until(lambda: not fleet.nodes[0].registrations)
            began = time.monotonic()
            with pytest.raises(NameAway):
                await fleet.nodes[1].open("web-1")
            assert time.monotonic() - began >= 0.3
        # Then it is unknown, as it was before.
        async with asyncio.timeout(patience(10)):
            while True:
                try:
                    await fleet.nodes[1].open("web-1")
                except NameUnknown:
                    break
                except NameAway:
                    continue


async def test_a_session_that_is_cut_is_waited_for(fleet: Fleet) -> None:
    async with fleet.member("web-1", [0, 1]) as member:
        for node in fleet.nodes:
            await ask(await node.open("web-1"), b"x")
        for _ in range(2):
            (await member.connected()).abort()
            await member.connected()
            answers = [ask(await node.open("web-1"), b"again") for node in fleet.nodes]
            assert await asyncio.gather(*answers) == 3 * [b"again"]


async def test_a_peer_session_that_is_cut_cuts_what_runs_and_is_made_anew(fleet: Fleet) -> None:
    a, b = fleet.nodes[:2]
    async with fleet.member("web-1", [0]):
        stream = await b.open("web-1")
        await stream.write(b"begun")
        assert await stream.read(5) == b"begun"
        stream.session.abort(99)
        with pytest.raises(muxado.SessionError):
            await stream.read()
        stream.close()
        assert await ask(await b.open("web-1"), b"x") == b"x"
        await until(lambda: a.stats().peers == b.stats().peers == 1)


# Two sessions of one name


async def test_the_newest_session_of_an_identity_wins(fleet: Fleet) -> None:
    a, b, c = fleet.nodes

    async def first(stream: muxado.Stream, header: Header) -> None:
        await stream.write(b"first")

    async def second(stream: muxado.Stream, header: Header) -> None:
        await stream.write(b"second")

    async with fleet.member("web-1", [0], first, key="alice"):
        assert await ask(await c.open("web-1"), b"") == b"first"
        async with fleet.member("web-1", [1], second, key="alice"):
            for node in (a, b, c):
                assert await ask(await node.open("web-1"), b"") == b"second"
            assert (a.stats().registered, b.stats().registered) == (0, 1)


async def test_another_identity_does_not_get_a_name(fleet: Fleet) -> None:
    async with (
        fleet.member("web-1", [0], key="alice"),
        muxado.connect("127.0.0.1", fleet.ports[1]) as session,
    ):
        with pytest.raises(Denied, match="held by another identity") as caught:
            await join(session, name="web-1", key="bob")
        assert caught.value.code == 409


@pytest.mark.parametrize(
    ("hello", "code"),
    [
        ({"name": "web-1", "key": "stranger"}, 401),
        ({"name": "No Name"}, 400),
        ({}, 400),
    ],
)
async def test_who_is_not_taken_is_told_why(
    fleet: Fleet, hello: dict[str, object], code: int
) -> None:
    async with muxado.connect("127.0.0.1", fleet.ports[0]) as session:
        with pytest.raises(Denied) as caught:
            await join(session, **hello)
        assert caught.value.code == code
        await session.wait_closed()


async def test_a_member_that_is_not_taken_is_told_so(fleet: Fleet) -> None:
    async with Member("web-1", fleet.places(0, 1), echo, key="stranger") as member:
        with pytest.raises(Denied, match="does not know you"):
            await member.connected()
        assert member.dialer.state == "failed"


async def test_a_certificate_says_when_it_expires(tls: Tls) -> None:
    async with (
        muxado.listen("127.0.0.1", 0, ssl=tls.mutual_server) as listener,
        muxado.connect("localhost", listener.addresses[0][1], ssl=tls.mutual_client) as client,
    ):
        server = await listener.accept()
        for session in (client, server):
            expires = expiry_of(session)
            assert expires is not None
            assert expires > time.time()
        server.abort()


async def test_a_session_ends_with_its_credential(fleet: Fleet) -> None:
    ended = asyncio.Event()

    async def take(session: muxado.Session) -> None:
        await fleet.nodes[0].register("web-1", session, expires=time.time() + 0.3)
        await session.wait_closed()
        ended.set()

    async with (
        muxado.serve(take, "127.0.0.1", 0) as server,
        muxado.connect("127.0.0.1", server.addresses[0][1]) as session,
    ):
        reason = await session.wait_closed()
        assert reason.code == 403
        await ended.wait()
        await until(lambda: fleet.nodes[0].registrations == [])


# Peers


async def test_two_that_dial_each_other_at_once_keep_one_session(fleet: Fleet) -> None:
    a, b = fleet.nodes[:2]
    async with fleet.member("web-a", [0]), fleet.member("web-b", [1]):
        answers = await asyncio.gather(
            *[
                ask(await node.open(name), b"x")
                for _ in range(20)
                for node, name in ((a, "web-b"), (b, "web-a"))
            ]
        )
        assert answers == 40 * [b"x"]
        await until(lambda: len(peer_sessions()) == 2)  # both ends of one
        assert (a.stats().peers, b.stats().peers) == (1, 1)


def peer_sessions() -> list[str]:
    return [each.name for each in muxado.sessions() if each.name.startswith("peer")]


def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.mark.parametrize("who", ["client", "no certificate"])
async def test_a_client_is_no_peer(fleet: Fleet, tmp_path: Path, who: str) -> None:
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname = False
    stranger.verify_mode = ssl.CERT_NONE
    if who == "client":  # one of the authority of clients
        clients = trustme.CA()
        clients.issue_cert("client@example.org").configure_cert(stranger)
    host, _, port = fleet.nodes[0].place.address.rpartition(":")
    with pytest.raises((OSError, EOFError, muxado.MuxadoError)):
        async with muxado.connect(host, int(port), ssl=stranger) as session:
            await join(session, node="x", address="x:1")


async def test_a_peer_is_no_client(fleet: Fleet, tmp_path: Path) -> None:
    clients = trustme.CA()
    for_clients = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    for_clients.verify_mode = ssl.CERT_REQUIRED
    clients.configure_trust(for_clients)
    clients.issue_cert("127.0.0.1").configure_cert(for_clients)
    taken: list[muxado.Session] = []

    async def take(session: muxado.Session) -> None:
        taken.append(session)

    async with muxado.serve(take, "127.0.0.1", 0, ssl=for_clients) as server:
        place = server.addresses[0][:2]
        for authority, name in ((clients, "client@example.org"), (None, "peer")):
            context = ssl.create_default_context()
            clients.configure_trust(context)
            if authority is None:
                context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
            else:
                authority.issue_cert(name).configure_cert(context)
            with contextlib.suppress(OSError, muxado.MuxadoError):
                async with muxado.connect(*place, ssl=context) as session:
                    await session.ping()
            assert len(taken) == 1


async def test_a_server_of_another_authority_is_not_dialled(fleet: Fleet, tmp_path: Path) -> None:
    other = peer_tls(tmp_path / "other", trustme.CA())
    async with (
        Node(directory=MemoryDirectory(fleet.engine), peers=other, grace=0.1) as stranger,
        fleet.member("web-1", [0]),
    ):
        with pytest.raises(NameAway):
            await stranger.open("web-1")


async def test_what_a_peer_asks_for_is_not_passed_on_again(fleet: Fleet) -> None:
    host, _, port = fleet.nodes[0].place.address.rpartition(":")
    async with (
        fleet.member("web-0", [0]),
        fleet.member("web-1", [1]),
        muxado.connect(host, int(port), ssl=fleet.tls.client) as session,
    ):
        await join(session, node="by-hand", address="192.0.2.1:1")
        for header, verdict in (
            (Header("http", "web-0", 1), Verdict.HERE),
            (Header("http", "web-1", 1), Verdict.NOT_HERE),
            (Header("http", "web-0", 2), Verdict.NOT_HERE),
            (Header("http", "web-0", 0), Verdict.NOT_HERE),
        ):
            async with session.open() as stream:
                await stream.write(header.pack())
                assert await stream.readexactly(1) == bytes([verdict])
        for line in (b"GET / HTTP/1.1\r\n", b"{}\n", 5000 * b"x", b"\xff\n", b'{"service":1}\n'):
            stream = session.open()
            await stream.write(line)
            with pytest.raises(muxado.StreamReset) as caught:
                await stream.read()
            assert caught.value.code == muxado.ErrorCode.PROTOCOL_ERROR


async def test_a_header_may_come_in_pieces(fleet: Fleet) -> None:
    host, _, port = fleet.nodes[0].place.address.rpartition(":")
    async with (
        fleet.member("web-0", [0]),
        muxado.connect(host, int(port), ssl=fleet.tls.client) as session,
    ):
        await join(session, node="by-hand", address="192.0.2.1:1")
        async with session.open() as stream:
            for byte in Header("http", "web-0", 1).pack():
                await stream.write(bytes([byte]))
                await session.ping()  # so that the next one comes alone
            assert await stream.readexactly(1) == bytes([Verdict.HERE])
            await stream.write(b"x")
            stream.write_eof()
            assert await stream.read() == b"x"


async def test_a_stream_without_a_header_is_reset_by_its_reader(fleet: Fleet) -> None:
    async with (
        muxado.serve_streams(read_header, "127.0.0.1", 0) as server,
        muxado.connect("127.0.0.1", server.addresses[0][1]) as session,
    ):
        for line in (b"GET /\n", b"no end", 70_000 * b"x"):
            stream = session.open()
            await stream.write(line)
            stream.write_eof()
            with pytest.raises(muxado.StreamReset):
                await stream.read()


def test_peers_without_certificates_are_for_loopback_alone() -> None:
    with pytest.raises(muxado.UsageError, match="certificates"):
        Node(directory=MemoryDirectory(), peers=None, host="0.0.0.0")
    Node(directory=MemoryDirectory(), peers=None, host="127.0.0.1")


def test_a_header_that_is_too_long_is_told_to_the_caller() -> None:
    with pytest.raises(HeaderError):
        Header(5000 * "x").pack()


# The end of a server


async def test_a_drain_fails_no_request(fleet: Fleet) -> None:
    names = [f"web-{number}" for number in range(10)]
    enough, done = asyncio.Event(), asyncio.Event()
    made = 0

    async def load(node: Node, seed: int) -> None:
        nonlocal made
        rng = random.Random(seed)
        while not enough.is_set():
            question = rng.randbytes(rng.randint(1, 3000))
            assert await ask(await node.open(rng.choice(names)), question) == question
            made += 1

    async with asyncio.TaskGroup() as group:
        members = [
            await enter(group, fleet, name, [number % 3, (number + 1) % 3], done)
            for number, name in enumerate(names)
        ]
        await asyncio.gather(*[member.wait() for member in members])
        loads = [group.create_task(load(node, number)) for number, node in enumerate(fleet.nodes)]
        await until(lambda: made > 100)
        await fleet.nodes[0].drain(patience(10))
        assert fleet.nodes[0].registrations == []
        before = made
        await until(lambda: made > before + 100)
        enough.set()
        await asyncio.wait(loads)
        done.set()


async def enter(
    group: asyncio.TaskGroup, fleet: Fleet, name: str, servers: list[int], done: asyncio.Event
) -> asyncio.Event:
    """Have a member connected until the end; return what is set when it is."""
    connected = asyncio.Event()

    async def run() -> None:
        async with fleet.member(name, servers, echo):
            connected.set()
            await done.wait()

    group.create_task(run())
    return connected


async def test_a_stream_that_runs_when_the_drain_begins_runs_to_its_end(fleet: Fleet) -> None:
    a, b = fleet.nodes[:2]
    async with fleet.member("web-1", [0, 1]):
        stream = await b.open("web-1")
        await stream.write(b"begun ")
        assert await stream.read(6) == b"begun "
        drained = asyncio.create_task(a.drain(patience(10)))
        await until(lambda: b.stats().registered == 1)
        assert not drained.done()
        assert await ask(stream, b"ended") == b"ended"
        await drained


async def test_a_member_that_has_no_other_server_is_let_go_at_the_end(fleet: Fleet) -> None:
    async with fleet.member("web-1", [0]):
        await fleet.nodes[0].drain(0.5)
        assert fleet.nodes[0].registrations == []
        with pytest.raises(NameAway):
            async with muxado.connect("127.0.0.1", fleet.ports[0]) as session:
                await fleet.nodes[0].register("web-2", session)


async def test_a_member_that_has_moved_is_let_go_before_its_session_ends(fleet: Fleet) -> None:
    # Servers that can't tell each other.
    a, b = [await fleet.add(directory=MemoryDirectory()) for _ in range(2)]
    async with fleet.member("web-1", [3, 4]) as member:
        session = a.registrations[0].session
        held: list[int] = []
        session.on_draining(lambda: held.append(len(a.registrations)))
        member.dialer.renew()
        await session.wait_closed()
        assert held == [0]
        assert len(b.registrations) == 1
        assert await ask(await b.open("web-1"), b"x") == b"x"


class SlowDirectory(MemoryDirectory):
    """One whose claims are answered late, and which does not find its own server's, as NATS."""

    def __init__(self, shared: MemoryDirectory) -> None:
        super().__init__(shared)
        self.claimed = asyncio.Event()
        self.answer = asyncio.Event()

    async def claim(self, name: str, *, identity: str = "", epoch: int | None = None) -> Claim:
        claim = await super().claim(name, identity=identity, epoch=epoch)
        self.claimed.set()
        await self.answer.wait()
        return claim

    async def find(self, name: str) -> Route | None:
        return None


async def test_a_name_that_is_being_claimed_here_is_waited_for(fleet: Fleet) -> None:
    directory = SlowDirectory(fleet.engine)
    node = await fleet.add(directory=directory)
    number = len(fleet.nodes) - 1
    async with Member("web-1", fleet.places(number), echo) as member:
        await directory.claimed.wait()
        opening = asyncio.create_task(node.open("web-1"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not opening.done()
        directory.answer.set()
        assert await ask(await opening, b"x") == b"x"
        await member.connected()
