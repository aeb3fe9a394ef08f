"""Floods: what a peer may send without end, and how much of it may stay with us."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from muxado.config import Config
from tests.inside import MAX_ANSWERS, MAX_RECENTLY_RESET

from ..core.peer import PAD, PING, data, goaway, header, rst, wndinc

# Frames per burst, and how many bursts a flood has.
FRAMES = 500
BURSTS = 20
UNREAD_BURSTS = 100

MOST_STREAMS = 2000
BACKLOG = 128
WINDOW = 64 * 1024
LIMITS: dict[str, Any] = {
    "max_incoming_streams": MOST_STREAMS,
    "accept_backlog": BACKLOG,
    "initial_window": WINDOW,
}

# What is held for each of a thing, in bytes, with room for allocators and debug builds.
PER_STREAM = 1024
PER_ANSWER = 150  # with the frame that is made of it
PER_MUTED = 100
SLACK = 32 * 1024  # dicts and deques that have grown, the estimator, numbers

ANSWERS = MAX_ANSWERS * PER_ANSWER + MAX_RECENTLY_RESET * PER_MUTED + SLACK
STREAMS = MOST_STREAMS * PER_STREAM + ANSWERS

# A stream that was there before the flood, and one that the flood may misuse.
BYSTANDER = 1_000_001
VICTIM = 1_000_003

# What the application does in its turns.
SLEEPS, ACCEPTS, READS, ANSWERS_BACK = range(4)


@dataclass(frozen=True, kw_only=True)
class Flood:
    """One kind of flood, with the ids of a server's peer.

    Attributes:
        burst: the bytes of the n-th burst.
        bound: bytes that may be held more than before, at any time.
        app: what the application does.
        if_read: the code of the GOAWAY that ends it if the peer reads; None: it goes on.
        if_unread: the same for a peer that reads nothing.
        typed: whether the session is.
        seconds: how much time passes between bursts.
    """

    burst: Callable[[int], bytes]
    bound: int
    app: int = SLEEPS
    if_read: int | None = None
    if_unread: int | None = None
    typed: bool = False
    seconds: float = 0.01

    def config(self) -> Config:
        return Config(typed=self.typed, **LIMITS)


def ids(burst: int) -> range:
    """Return ids of the client's parity that no other burst has."""
    start = 3 + 2 * FRAMES * burst
    return range(start, start + 2 * FRAMES, 2)


def each(frames: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """Return the bursts that say the same about ever new ids."""

    def burst(number: int) -> bytes:
        return b"".join(map(frames, ids(number)))

    return burst


def same(*frames: bytes) -> Callable[[int], bytes]:
    """Return the bursts that say the same again and again."""

    def burst(number: int) -> bytes:
        return b"".join(frames) * FRAMES

    return burst


def turns(*frames: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """Return the bursts that say one thing about new ids, the next burst the next thing."""

    def burst(number: int) -> bytes:
        return b"".join(map(frames[number % len(frames)], ids(number // len(frames))))

    return burst


def longest(flags: int, stream_id: int) -> Callable[[int], bytes]:
    """Return the bursts that are together the longest DATA frame there is."""
    wire = header(0xFFFFFF, 1, flags, stream_id) + bytes(0xFFFFFF)
    part = len(wire) // BURSTS + 1
    return lambda number: wire[number * part : (number + 1) * part]


def falling(number: int) -> bytes:
    """Return GOAWAYs with rising and falling last ids."""
    return b"".join(goaway(2 * i % 1000 if i % 3 else 10**6 - i, 0) for i in ids(number))


FLOODS: dict[str, Flood] = {
    # Streams
    "SYN, not accepted": Flood(
        burst=each(lambda i: data(i, syn=True)),
        bound=BACKLOG * PER_STREAM + ANSWERS,
        if_unread=10,
    ),
    "SYN with data, not accepted": Flood(
        burst=each(lambda i: data(i, bytes(100), syn=True)),
        bound=BACKLOG * (PER_STREAM + 100) + ANSWERS,
        if_unread=10,
    ),
    "SYN, all accepted": Flood(
        burst=each(lambda i: data(i, syn=True)),
        bound=STREAMS,
        app=ACCEPTS,
        if_unread=10,
    ),
    "SYN and FIN, not accepted": Flood(
        burst=each(lambda i: data(i, b"x", syn=True, fin=True)),
        bound=BACKLOG * PER_STREAM + ANSWERS,
        if_unread=10,
    ),
    "SYN and FIN, all accepted and closed": Flood(
        burst=each(lambda i: data(i, b"x", syn=True, fin=True)),
        bound=STREAMS,
        app=ANSWERS_BACK,
        if_unread=10,  # what waits to be sent counts as alive, so more are refused
    ),
    "opened and reset in one breath": Flood(
        burst=each(lambda i: data(i, b"x", syn=True) + rst(i, 6)),
        bound=SLACK,
        app=ACCEPTS,
        if_read=10,
        if_unread=10,
    ),
    "opened and reset on one id": Flood(
        burst=same(data(3, b"x", syn=True), rst(3, 6)),
        bound=SLACK,
        if_read=10,
        if_unread=10,
    ),
    "opened, accepted, then reset": Flood(
        burst=turns(lambda i: data(i, b"x", syn=True), lambda i: rst(i, 6)),
        bound=FRAMES * PER_STREAM + SLACK,
        app=ACCEPTS,
    ),
    "opened, answered, then reset": Flood(
        burst=turns(lambda i: data(i, b"x", syn=True), lambda i: rst(i, 6)),
        bound=FRAMES * (PER_STREAM + 300) + SLACK,
        app=ANSWERS_BACK,
    ),
    "half a window on ever new streams, read, then reset": Flood(
        burst=lambda n: b"".join(
            data(i, bytes(WINDOW // 2), syn=True) if n % 2 == 0 else rst(i, 6)
            for i in ids(n // 2)[:50]
        ),
        # The application reads when the whole of a burst has come.
        bound=50 * (PER_STREAM + WINDOW // 2) + SLACK,
        app=READS,
    ),
    # Data
    "DATA for ever new unknown streams": Flood(
        burst=each(lambda i: data(i, b"x")), bound=ANSWERS, if_unread=10
    ),
    "DATA for one unknown stream": Flood(burst=same(data(7, bytes(100))), bound=SLACK),
    "DATA for our unknown streams": Flood(
        burst=each(lambda i: data(i - 1)), bound=ANSWERS, if_unread=10
    ),
    "tiny DATA, unread": Flood(
        burst=same(data(VICTIM, b"x") * 8), bound=2 * WINDOW + SLACK, app=ACCEPTS
    ),
    "tiny DATA, read": Flood(burst=same(data(VICTIM, b"x")), bound=SLACK, app=READS),
    "tiny DATA on many streams": Flood(
        burst=turns(*[lambda i: data(i, b"x", syn=True), *[lambda i: data(i, b"x")] * 5]),
        bound=STREAMS + MOST_STREAMS * 300,
        app=ACCEPTS,
    ),
    "DATA of all lengths in turn, unread": Flood(
        burst=lambda n: b"".join(data(VICTIM, bytes(2048 if i % 2 else 1)) for i in range(FRAMES)),
        bound=WINDOW * 5 // 4 + SLACK,
        app=ACCEPTS,
    ),
    "16 MiB over the window": Flood(burst=longest(0, VICTIM), bound=SLACK, app=ACCEPTS),
    "16 MiB over the window, on a new stream": Flood(burst=longest(2, 3), bound=SLACK, app=ACCEPTS),
    "16 MiB for an unknown stream": Flood(burst=longest(0, 7), bound=SLACK),
    "empty DATA": Flood(burst=same(data(VICTIM)), bound=SLACK, app=ACCEPTS),
    "pings": Flood(burst=same(PING), bound=SLACK),
    # Ends, credit and the rest
    "FIN again and again": Flood(burst=same(data(VICTIM, fin=True)), bound=SLACK, app=ACCEPTS),
    "FIN for unknown streams": Flood(burst=each(lambda i: data(i, fin=True)), bound=SLACK),
    "RST for unknown streams": Flood(burst=each(lambda i: rst(i, 9)), bound=SLACK),
    "RST 9 for unknown streams of ours": Flood(burst=each(lambda i: rst(i - 1, 9)), bound=SLACK),
    "answers to pings that were not sent": Flood(burst=same(rst(1, 4)), bound=SLACK),
    "WNDINC of 1": Flood(burst=same(wndinc(VICTIM, 1)), bound=SLACK),
    "WNDINC of all there is": Flood(burst=same(wndinc(VICTIM, 0x7FFFFFFF)), bound=SLACK),
    "WNDINC for unknown streams": Flood(burst=each(lambda i: wndinc(i, 9)), bound=SLACK),
    "unknown types": Flood(burst=same(header(5, 9, 15, 0) + bytes(5), PAD), bound=SLACK),
    "unknown types of 64 KiB": Flood(
        burst=lambda n: (header(65536, 4, 0, 7) + bytes(65536)) * 10, bound=SLACK
    ),
    "GOAWAY, rising and falling": Flood(burst=falling, bound=SLACK),
    "GOAWAY with long text": Flood(
        burst=lambda n: goaway(n, n, bytes([n]) * 100_000) * 3, bound=SLACK
    ),
    # Typed sessions
    "streams that never say their type": Flood(
        burst=each(lambda i: data(i, b"\0\0\0", syn=True)),
        bound=STREAMS,
        typed=True,
        if_unread=10,
    ),
    "streams that end before their type": Flood(
        burst=each(lambda i: data(i, b"\0\0\0", syn=True, fin=True)),
        bound=ANSWERS,
        typed=True,
        if_unread=10,
    ),
    "heartbeats": Flood(
        burst=lambda n: b"".join(
            data(i, b"\xff" * 4 + bytes(100), syn=True) + data(i, bytes(4)) for i in ids(n)
        ),
        bound=16 * 5000 + ANSWERS,
        typed=True,
        if_unread=10,
    ),
    "one heartbeat, beating without end": Flood(
        burst=lambda n: (b"" if n else data(3, b"\xff" * 4, syn=True)) + data(3, bytes(4)) * FRAMES,
        bound=100_000 + SLACK,
        typed=True,
    ),
}
