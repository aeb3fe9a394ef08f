"""The soak's traffic: both ends of a stream, with every way to treat it badly."""

from __future__ import annotations

import asyncio
import random
import struct
from dataclasses import dataclass
from functools import partial

from muxado import Session, Stream

from .soak_ledger import MOST_PIECE, Entries, Entry, piece

# The key, the bytes there and back, and what the accepting end is to do.
HEADER = struct.Struct(">QQQB")

ANSWER_AT_ONCE = 0
ANSWER_AFTER_THE_END = 1
ANSWER_AND_END_FIRST = 2
RESET_MIDWAY = 3
CALL_BACK = 4
ECHO = 5  # a short stream that the ledger leaves out

CALLED_BACK = 1 << 63  # in the key of a stream that the accepting end has opened

WAYS = [ANSWER_AT_ONCE, ANSWER_AFTER_THE_END, ANSWER_AND_END_FIRST, RESET_MIDWAY, CALL_BACK]
SIZES = [0, 1, 64, 64, 1000, 20_000, 300_000, 3_000_000]


@dataclass(frozen=True)
class Plan:
    """What is to happen on one stream."""

    key: int
    there: int
    back: int
    way: int

    @classmethod
    def any(cls, key: int, dice: random.Random) -> Plan:
        """Think of something."""
        way = dice.choices(WAYS, [6, 6, 3, 2, 2])[0]
        return cls(key, dice.choice(SIZES), dice.choice(SIZES), way)


async def send(stream: Stream, key: int, count: int, entry: Entry, dice: random.Random) -> None:
    """Write what the key stands for, some of it under deadlines that are too short."""
    while entry.sent < count:
        size = min(count - entry.sent, dice.randrange(1, MOST_PIECE))
        data = piece(key, entry.sent, size)
        try:
            async with asyncio.timeout(dice.choice([0, 0.001, None, None])):
                await stream.write(data)
        except TimeoutError as exc:
            if type(exc) is not TimeoutError:
                raise
            continue  # nothing of it was queued
        entry.sent += size
    stream.write_eof()
    entry.finished = True


async def receive(stream: Stream, key: int, entry: Entry, dice: random.Random) -> None:
    """Read to the end, and look at every byte."""
    while data := await stream.read(dice.randrange(1, MOST_PIECE)):
        if data != piece(key, entry.received, len(data)) and entry.wrong < 0:
            entry.wrong = entry.received
        entry.received += len(data)
        if dice.random() < 0.02:
            await asyncio.sleep(dice.random() * 0.02)  # a slow reader
    entry.ended = True


async def both(*calls: asyncio.Task[None]) -> None:
    """Wait for the two halves of a stream; the first error ends both."""
    try:
        await asyncio.gather(*calls)
    finally:
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)


async def open_stream(session: Session, plan: Plan, entries: Entries) -> None:
    """Play the part of the opening end."""
    dice = random.Random(plan.key)
    stream = session.open(priority=dice.choice([-1, 0, 0, 0, 3]))
    # A session that ends may refuse those that the other end opens.
    early = plan.way in (RESET_MIDWAY, CALL_BACK) or plan.key & CALLED_BACK != 0
    entry = entries[plan.key] = Entry(excused=early)
    create = asyncio.get_running_loop().create_task
    try:
        async with stream:
            await stream.write(HEADER.pack(plan.key, plan.there, plan.back, plan.way))
            await both(
                create(send(stream, plan.key, plan.there, entry, dice)),
                create(receive(stream, plan.key, entry, random.Random(~plan.key))),
            )
            entry.done = entry.received == plan.back
    except asyncio.CancelledError:
        entry.excused = True
        raise


async def accept_stream(stream: Stream, entries: Entries) -> None:
    """Play the part of the accepting end."""
    try:
        header = await stream.readexactly(HEADER.size)
    except asyncio.IncompleteReadError:
        return  # cut short before it began
    plan = Plan(*HEADER.unpack(header))
    if plan.way == ECHO:
        await stream.write(await stream.read())
        return
    dice = random.Random(plan.key + 1)
    entry = entries[plan.key] = Entry()
    sending = partial(send, stream, plan.key, plan.back, entry, dice)
    receiving = partial(receive, stream, plan.key, entry, random.Random(~plan.key - 1))
    if plan.way == ANSWER_AFTER_THE_END:
        await receiving()
        await sending()
    elif plan.way == ANSWER_AND_END_FIRST:
        await sending()
        await receiving()
    elif plan.way == RESET_MIDWAY:
        entry.received = len(await stream.read(1000))
        stream.reset(1000 + plan.way)
        return
    else:
        create = asyncio.get_running_loop().create_task
        calls = [create(sending()), create(receiving())]
        if plan.way == CALL_BACK:
            key = plan.key | CALLED_BACK
            back = Plan(key, min(plan.there, 20_000), plan.back, ANSWER_AFTER_THE_END)
            calls.append(create(open_stream(stream.session, back, entries)))
        await both(*calls)
    entry.done = entry.received == plan.there


async def ask(session: Session, request: bytes) -> bytes:
    """Send a request on a stream that the ledger leaves out, and return the answer."""
    async with session.open() as stream:
        await stream.write(HEADER.pack(0, 0, 0, ECHO) + request)
        stream.write_eof()
        return await stream.read()
