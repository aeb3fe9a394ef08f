"""The directories in Redis and in NATS, on live engines, and what happens when those fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from tests.cluster.directories import CHECKS, Check, members
from tests.patience import patience

from muxado import UsageError
from muxado.cluster import (
    Claims,
    Directory,
    DirectoryAway,
    Held,
    NameTaken,
    Place,
    Route,
    Superseded,
)
from muxado.cluster.nats import NatsDirectory
from muxado.cluster.redis import RedisDirectory
from muxado.cluster.trouble import SLOW

from .engines import ENGINES, Engine, Nats, NewEngine, Redis, tls_options, trusting

pytestmark = [pytest.mark.anyio, pytest.mark.patience(40), pytest.mark.usefixtures("no_tasks_left")]

HERE = Place("here", "192.0.2.1:7444")
THERE = Place("there", "192.0.2.2:7444")


@pytest.fixture(params=ENGINES, ids=["redis", "nats"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    """An engine that runs."""
    async with running(request.param(tmp_path)) as engine:
        yield engine


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Redis]:
    """Redis, for what only it has."""
    async with running(Redis(tmp_path)) as engine:
        assert isinstance(engine, Redis)
        yield engine


@asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[Engine]:
    try:
        await engine.start()
        yield engine
    finally:
        await engine.stop()


@asynccontextmanager
async def keeping(directory: Directory, place: Place = HERE) -> AsyncIterator[Claims]:
    """The claims of a server."""
    claims = Claims(directory)
    await claims.start(place)
    try:
        yield claims
    finally:
        await claims.close()


def epoch_of(held: Held) -> int:
    assert held.epoch is not None
    return held.epoch


async def until_found(directory: Directory, name: str, route: Route | None) -> None:
    """Wait until a look-up gives a route; those that fail are tried again."""
    found: object = "nothing yet"
    async with asyncio.timeout(patience(20)):
        while found != route:
            try:
                found = await directory.find(name)
            except DirectoryAway as exc:
                found = exc
            await asyncio.sleep(0.02)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds that nothing tells of."""
    async with asyncio.timeout(patience(20)):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def until_trouble(directory: Directory, text: str) -> None:
    """Wait until a directory says that something is wrong."""
    await until(lambda: directory.trouble is not None and text in directory.trouble)


async def until_well(directory: Directory) -> None:
    await until(lambda: directory.trouble is None)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_it_is_a_directory(engine: Engine, check: Check) -> None:
    await check(engine.directory)


async def test_two_that_claim_at_once_agree(engine: Engine) -> None:
    names = {f"agent-{number}" for number in range(50)}
    async with (
        keeping(engine.directory(lease=0.6), HERE) as here,
        keeping(engine.directory(lease=0.6), THERE) as there,
        members(engine.directory, 1) as (asking,),
    ):
        held = await asyncio.gather(
            *[each.hold(name, print) for name in names for each in (here, there)],
            return_exceptions=True,
        )
        assert {type(each) for each in held} <= {Held, Superseded}
        # Who has lost is told soon, or at its next renewal.
        await until(lambda: here.claimed + there.claimed == len(names))
        for name in names:
            found = await asking.directory.find(name)
            assert found is not None
            keeper = here if found.place == HERE else there
            assert keeper.epoch(name) == found.epoch


async def test_an_engine_that_is_away_from_the_start_is_no_error(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "muxado.cluster")
    await engine.stop()
    directory = engine.directory(timeout=1.0)
    async with keeping(directory) as claims:
        assert directory.trouble is not None
        with pytest.raises(DirectoryAway):
            await directory.find("web-1")
        held = await claims.hold("web-1", print, timeout=0.1)
        assert held.epoch is None
        assert (claims.claimed, claims.waiting) == (0, 1)
        await engine.start()
        await until_well(directory)
        async with members(engine.directory, 1) as (other,):
            await until(lambda: held.epoch is not None)
            await until_found(other.directory, "web-1", Route(HERE, epoch_of(held)))
        assert (claims.claimed, claims.waiting) == (1, 0)
    said = [record.getMessage() for record in caplog.records]
    assert "can't be used" in said[0]
    assert "can be used again" in said[-1]


async def test_an_engine_that_comes_back_empty_is_told_again(engine: Engine) -> None:
    directory = engine.directory(timeout=1.0)
    async with keeping(directory) as claims, members(engine.directory, 1) as (other,):
        held = {name: await claims.hold(name, print) for name in ("web-1", "web-2")}
        await engine.stop()
        await until_trouble(directory, "")
        await until_trouble(other.directory, "")
        with pytest.raises(DirectoryAway):
            await other.directory.find("web-1")
        await engine.start()
        for name, each in held.items():
            assert each.epoch is not None
            await until_found(other.directory, name, Route(HERE, each.epoch))
        # A session that comes now is newer all the same.
        newer = await other.directory.claim("web-1")
        first = held["web-1"].epoch
        assert first is not None
        assert newer.epoch > first


async def test_a_frozen_engine_delays_no_client(engine: Engine) -> None:
    directory = engine.directory(timeout=0.5)
    async with keeping(directory), members(engine.directory, 1) as (other,):
        claim = await other.directory.claim("web-1")
        await engine.freeze()
        async with asyncio.timeout(patience(10)):
            with pytest.raises(DirectoryAway, match=r"no answer within 0\.5 s"):
                await directory.find("web-1")
            answers = await asyncio.gather(
                *[directory.find(f"web-{number}") for number in range(1000)],
                return_exceptions=True,
            )
        assert {type(answer) for answer in answers} == {DirectoryAway}
        engine.thaw()
        await until_found(directory, "web-1", Route(other.place, claim.epoch))


@pytest.mark.parametrize("new", ENGINES, ids=["redis", "nats"])
async def test_a_wrong_password_is_said(
    new: NewEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "muxado.cluster")
    options = ["--requirepass", "right"] if new is Redis else ["--user", "u", "--pass", "right"]
    user = "" if new is Redis else "u"
    async with running(new(tmp_path, *options)) as engine:
        url = engine.url.replace("//", f"//{user}:wr0ng@")
        directory = engine.directory(url=url, timeout=1.0)
        async with keeping(directory) as claims:
            await until_trouble(directory, "it refuses the user or the password")
            with pytest.raises(DirectoryAway, match="it refuses the user or the password"):
                await directory.find("web-1")
            held = await claims.hold("web-1", print, timeout=0.1)
            assert held.epoch is None
        assert "refuses" in caplog.text
        assert "wr0ng" not in caplog.text
        right = url.replace("wr0ng", "right")
        async with members(lambda: engine.directory(url=right), 1) as (member,):
            await member.directory.claim("web-1")


@pytest.mark.parametrize("new", ENGINES, ids=["redis", "nats"])
async def test_an_engine_behind_tls(new: NewEngine, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    engine = new(tmp_path, *tls_options(new, tmp_path))
    if new is Redis:
        engine.options += ("--tls-port", str(engine.port), "--port", "0")
        trusted: dict[str, Any] = {"ssl_ca_certs": str(tmp_path / "ca.pem")}
        url = engine.url.replace("redis:", "rediss:")
    else:
        trusted = {"tls": trusting(tmp_path)}
        url = engine.url.replace("nats:", "tls:")
    async with running(engine):
        async with members(lambda: engine.directory(url=url, **trusted), 2) as (first, second):
            claim = await first.directory.claim("web-1")
            assert await second.directory.find("web-1") == Route(first.place, claim.epoch)
        # Who does not trust it goes without it, and says why.
        stranger = engine.directory(url=url, timeout=1.0)
        async with keeping(stranger):
            await until_trouble(stranger, "certificate verify failed")


# Redis alone


async def test_redis_forgets_a_server_that_does_not_renew(redis: Redis) -> None:
    async with members(lambda: redis.directory(lease=30.0), 2) as (first, second):
        claim = await first.directory.claim("web-1")
        key = "muxado:name:web-1"
        assert 20_000 < await redis.tell("PTTL", key) <= 30_000
        await redis.tell("PEXPIRE", key, 15_000)
        assert await first.directory.renew({"web-1": (claim.epoch, "")}) == {}
        assert 15_000 < await redis.tell("PTTL", key) <= 30_000
        await redis.tell("PEXPIRE", key, 1)
        await until_found(second.directory, "web-1", None)
        # It was only late: its claim is put back as it was.
        assert await first.directory.renew({"web-1": (claim.epoch, "")}) == {}
        assert await second.directory.find("web-1") == Route(first.place, claim.epoch)


async def test_a_server_keeps_its_claims_by_itself(redis: Redis) -> None:
    async with keeping(redis.directory(lease=0.6)) as claims, members(redis.directory, 1) as (one,):
        held = await claims.hold("web-1", print)
        assert held.epoch is not None
        # What the engine has lost is put back by the next renewal.
        for _ in range(3):
            await redis.tell("DEL", "muxado:name:web-1")
            await until_found(one.directory, "web-1", Route(HERE, held.epoch))
        claims.drop(held)
        await until_found(one.directory, "web-1", None)


async def test_a_claim_that_was_superseded_unheard_is_lost_at_the_renewal(redis: Redis) -> None:
    lost: asyncio.Queue[Route | None] = asyncio.Queue()
    async with keeping(redis.directory(lease=0.6)) as claims, members(redis.directory, 1) as (one,):
        await claims.hold("web-1", lost.put_nowait)
        newer = await one.directory.claim("web-1")
        assert await lost.get() == Route(one.place, newer.epoch)
        assert claims.claimed == 0


async def test_a_claim_that_another_identity_turns_out_to_have_is_lost(redis: Redis) -> None:
    lost: asyncio.Queue[Route | None] = asyncio.Queue()
    await redis.tell("SET", "muxado:name:web-1", "5 there 192.0.2.2:7444 bob")
    await redis.tell("SAVE")
    await redis.stop()
    async with keeping(redis.directory()) as claims:
        held = await claims.hold("web-1", lost.put_nowait, identity="alice", timeout=0.1)
        assert held.epoch is None
        await redis.start()  # it loads what was saved
        assert await lost.get() is None
        assert (claims.claimed, claims.waiting) == (0, 0)
        with pytest.raises(NameTaken):
            await claims.hold("web-1", lost.put_nowait, identity="alice")


async def test_flushed_scripts_are_loaded_again(redis: Redis) -> None:
    async with members(redis.directory, 1) as (one,):
        await redis.tell("SCRIPT", "FLUSH")
        claims = await asyncio.gather(*[one.directory.claim(f"web-{n}") for n in range(10)])
        assert await one.directory.find("web-9") == Route(one.place, claims[9].epoch)


@pytest.mark.parametrize("fault", ["read-only", "out of memory"])
async def test_an_engine_that_takes_no_changes_is_read(
    redis: Redis, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "muxado.cluster")
    begin, end = {
        "read-only": (("REPLICAOF", "127.0.0.1", redis.port), ("REPLICAOF", "NO", "ONE")),
        "out of memory": (
            ("CONFIG", "SET", "maxmemory", 1),
            ("CONFIG", "SET", "maxmemory", 0),
        ),
    }[fault]
    directory = redis.directory()
    async with keeping(directory) as claims, members(redis.directory, 1) as (one,):
        held = await claims.hold("web-1", print)
        await redis.tell(*begin)
        later = await claims.hold("web-2", print, timeout=0.5)
        assert later.epoch is None
        assert directory.trouble is not None
        assert fault in directory.trouble
        assert held.epoch is not None
        assert await one.directory.find("web-1") == Route(HERE, held.epoch)
        if fault == "read-only":
            with pytest.raises(DirectoryAway, match=fault):
                await directory.renew({"web-1": (held.epoch, "")})
        else:
            await directory.renew({"web-1": (held.epoch, "")})
        assert claims.waiting == 1
        await redis.tell(*end)
        await until(lambda: claims.waiting == 0)
        assert await one.directory.find("web-2") == Route(HERE, epoch_of(later))
        await until_well(directory)
    said = [record.getMessage() for record in caplog.records]
    assert [fault in line for line in said[:-1]] == [True]
    assert "can be used again" in said[-1]


async def test_a_slow_engine_is_named(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "muxado.cluster")
    async with members(lambda: engine.directory(timeout=patience(30)), 1) as (one,):
        await engine.freeze()
        asking = asyncio.create_task(one.directory.find("web-1"))
        await asyncio.sleep(SLOW + 0.1)  # for which it does nothing
        engine.thaw()
        assert await asking is None
        assert one.directory.trouble is None
    assert "is slow: an answer took" in caplog.text


async def test_a_thousand_claims_use_one_connection(redis: Redis) -> None:
    async with members(redis.directory, 1) as (one,):
        before = await redis.tell("INFO", "stats")
        await asyncio.gather(*[one.directory.claim(f"web-{n}") for n in range(1000)])
        after = await redis.tell("INFO", "stats")
        # Those that ask here have one each.
        made = after["total_connections_received"] - before["total_connections_received"]
        assert made == 1


async def test_a_fleet_sees_none_of_another(redis: Redis) -> None:
    async with (
        members(lambda: redis.directory(prefix="a:"), 1) as (a,),
        members(lambda: redis.directory(prefix="b:"), 1) as (b,),
    ):
        claim = await a.directory.claim("web-1", identity="alice")
        assert await b.directory.find("web-1") is None
        await b.directory.claim("web-1", identity="bob")
        assert await a.directory.find("web-1") == Route(a.place, claim.epoch, "alice")


def test_what_cannot_be_dialled_is_refused_at_once() -> None:
    with pytest.raises(UsageError):
        RedisDirectory()
    with pytest.raises(UsageError):
        RedisDirectory("redis://localhost", lease=0)
    with pytest.raises(ValueError, match="scheme"):
        RedisDirectory("http://localhost")
    with pytest.raises(UsageError):
        NatsDirectory([])
    with pytest.raises(UsageError):
        NatsDirectory("nats://localhost", timeout=0)


# NATS alone


async def test_of_two_that_hold_a_name_in_nats_the_older_lets_go(tmp_path: Path) -> None:
    async with (
        running(Nats(tmp_path)) as engine,
        members(engine.directory, 2) as (first, asking),
    ):
        assert isinstance(engine, Nats)
        claim = await first.directory.claim("web-1")
        other = await engine.client()
        newer = Route(THERE, claim.epoch + 1)

        # As one that had not heard of the first: beyond a part of NATS that was cut off.
        async def answer(message: object) -> None:
            data = f"{newer.epoch} {THERE.node} {THERE.address} "
            await message.respond(data.encode())  # type: ignore[attr-defined]

        await other.subscribe("muxado.name.web-1", cb=answer)
        await other.flush()
        both = (newer, Route(first.place, claim.epoch))
        async with asyncio.timeout(patience(20)):
            while not first.lost:
                assert await asking.directory.find("web-1") in both
                await asyncio.sleep(0.02)
        assert first.lost == [("web-1", newer)]
        assert await asking.directory.find("web-1") == newer
        await other.close()


async def test_another_identity_in_nats_keeps_its_name(tmp_path: Path) -> None:
    async with (
        running(Nats(tmp_path)) as engine,
        members(engine.directory, 2) as (first, second),
    ):
        claim = await first.directory.claim("web-1", identity="alice")
        with pytest.raises(NameTaken):
            await second.directory.claim("web-1", identity="bob", epoch=claim.epoch + 5)
        assert first.lost == []
