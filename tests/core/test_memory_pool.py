"""Receive memory that several sessions share: never more than its limit, and none is lost."""

from __future__ import annotations

import random
from contextlib import nullcontext

import pytest

from muxado import Config
from muxado.build import COMPILED
from muxado.core import CoreSession, CoreStream, MemoryPool
from muxado.core.memory_pool import LOOK_INTERVAL, STEP, PoolMember

from .peer import Bench, data

KIB = 1024

pure = pytest.mark.skipif(COMPILED, reason="a compiled class has no subclass outside")


class Guest(Bench):
    """A server's session whose memory comes from a pool."""

    def __init__(self, pool: MemoryPool, config: Config | None = None) -> None:
        super().__init__(config)
        self.core = CoreSession(client=False, config=config or Config(), now=self.now, pool=pool)
        self.next_id = 3

    def send(self, size: int) -> CoreStream:
        """Have the peer send some bytes on a stream of its own."""
        stream_id = self.next_id
        self.next_id += 2
        stream = self.accepted(data(stream_id, syn=True))
        self.hear(data(stream_id, bytes(size)))
        return stream

    def held(self) -> int:
        return self.core.stats().memory_held


def new_pool(most: int) -> MemoryPool:
    return MemoryPool(most, nullcontext())


def refused(stream: CoreStream) -> bool:
    return stream.reset_code == 10 and not stream.reset_by_peer


def test_what_would_pass_the_limit_resets_its_own_stream() -> None:
    pool = new_pool(300 * KIB)
    one, other = Guest(pool), Guest(pool)
    kept = [one.send(100 * KIB), other.send(100 * KIB), other.send(100 * KIB)]
    assert not any(refused(stream) for stream in kept)
    assert (one.held(), other.held()) == (100 * KIB, 200 * KIB)
    assert refused(one.send(1))
    assert one.core.reason is None
    assert len(kept[0].read(1 << 20)) == 100 * KIB


def test_what_one_has_read_another_may_hold() -> None:
    pool = new_pool(200 * KIB)
    one, other = Guest(pool), Guest(pool)
    stream = one.send(200 * KIB)
    assert refused(other.send(1))
    stream.read(1 << 20)
    other.now += 1
    assert not refused(other.send(200 * KIB))
    assert refused(one.send(1))


def test_the_sessions_own_limit_stays() -> None:
    guest = Guest(new_pool(1000 * KIB), Config(max_receive_memory=100 * KIB))
    assert not refused(guest.send(100 * KIB))
    assert refused(guest.send(1))


def test_an_ended_session_gives_everything_back() -> None:
    pool = new_pool(200 * KIB)
    one, other, another = Guest(pool), Guest(pool), Guest(pool)
    one.send(100 * KIB)
    other.send(100 * KIB)
    one.core.connection_lost(ConnectionResetError(), one.now)
    other.core.abandon("a call was cut off")
    assert pool.leased == 0
    assert not refused(another.send(200 * KIB))


class Counting(PoolMember):
    """A member that uses all that it has leased, and counts how often it is looked at."""

    def __init__(self, pool: MemoryPool, size: int) -> None:
        self.looks = 0
        self._has = pool.lease(self, size, 0.0)

    def return_unused(self) -> int:
        self.looks += 1
        return self._has


@pure
def test_a_full_pool_does_not_look_at_all_sessions_for_every_frame() -> None:
    pool = new_pool(100 * STEP)
    holders = [Counting(pool, STEP) for _ in range(100)]
    asking = PoolMember()
    interval = LOOK_INTERVAL * len(holders)
    for frame in range(1000):
        assert pool.lease(asking, 1, 100.0 + frame * interval / 100) == 0
    assert {holder.looks for holder in holders} == {10}


def test_leases_are_taken_in_steps() -> None:
    pool = new_pool(100 * STEP)
    guest = Guest(pool)
    guest.send(1)
    assert pool.leased == STEP
    guest.send(STEP - 1)
    assert pool.leased == STEP
    guest.send(1)
    assert pool.leased == 2 * STEP


def end(rng: random.Random, stream: CoreStream) -> None:
    """Let go of what a stream has brought, in one way or another."""
    match rng.randrange(3):
        case 0:
            stream.read(1 << 20)
        case 1:
            stream.reset(6)
        case _:
            stream.close()


@pytest.mark.parametrize("seed", range(5))
def test_the_sum_stays_below_the_limit_whatever_happens(seed: int) -> None:
    rng = random.Random(seed)
    most = 500 * KIB
    pool = new_pool(most)
    guests = [Guest(pool) for _ in range(4)]
    streams: list[tuple[Guest, CoreStream]] = []
    accepted = 0
    for _ in range(400):
        guest = rng.choice(guests)
        guest.now += rng.choice([0.0, 0.001])
        action = rng.random()
        if action < 0.6:
            stream = guest.send(rng.randrange(60 * KIB))
            if not refused(stream):
                accepted += 1
                streams.append((guest, stream))
        elif action < 0.95 and streams:
            _, stream = streams.pop(rng.randrange(len(streams)))
            end(rng, stream)
        elif action > 0.98:
            guest.core.connection_lost(ConnectionResetError(), guest.now)
            guests.remove(guest)
            streams = [(owner, stream) for owner, stream in streams if owner is not guest]
            guests.append(Guest(pool))
        held = sum(guest.held() for guest in guests)
        assert held <= pool.leased <= most
    assert accepted > 50
    for guest in guests:
        guest.core.connection_lost(None, guest.now)
    assert pool.leased == 0
