"""Mixed traffic over a bad line, for as long as wanted: `python -m tests.reliability.soak`.

Requests, bulk, half-closes, resets, cancellations, pings and new sessions, through a relay
that delays, throttles, cuts, resets and swallows. In the end every byte is accounted for. The
same seed gives the same plans; what becomes of them is also up to the clock.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import itertools
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import muxado
from muxado import Config, MuxadoError, Session, SessionError
from tests.patience import patience

from .relay import Relay
from .soak_ledger import Entries, Totals, unpacked
from .soak_peer import SETTINGS, SoakPeer, resident, run
from .soak_traffic import Plan, accept_stream, ask, open_stream

WORKERS = 12
FAULTS = ["none", "reset", "end", "cut", "black hole", "one way", "gap", "slow", "far"]
ENDS = ["close", "shutdown", "abort", "leave"]
# Seconds within which both ends must be rid of a session, whatever has happened to it.
PATIENCE = patience(20)


class Soak:
    """One run."""

    def __init__(self, peer: SoakPeer, relay: Relay, seed: int) -> None:
        self.totals = Totals()
        self.sessions = 0
        self.pings = 0
        self.events: Counter[str] = Counter()
        self._peer = peer
        self._relay = relay
        self._dice = random.Random(seed)

    async def session(self, questions: Session, seconds: float) -> None:
        """Dial, do everything for a while, end it somehow, and settle the accounts."""
        self.sessions += 1
        keys = itertools.count(self.sessions << 32)
        entries: Entries = {}
        self._relay.release()
        self._relay.shape()
        host, port = self._relay.address
        session = await muxado.connect(host, port, config=Config(**SETTINGS))
        await session.ping()  # from here on the peer knows of it
        work = [self._work(session, keys, entries) for _ in range(WORKERS)]
        work += [self._serve(session, entries), self._ping(session)]
        tasks = [asyncio.create_task(each) for each in work]
        fault, end = self._dice.choice(FAULTS), self._dice.choice(ENDS)
        if self.sessions == 1:  # however short the run is, this is a part of it
            fault, end = "none", "shutdown"
        orderly = (fault, end) == ("none", "shutdown")
        self.events.update([f"line: {fault}", f"end: {end}"])
        async with asyncio.timeout(seconds + PATIENCE):
            await asyncio.sleep(seconds * self._dice.random())
            self._spoil(fault)
            await asyncio.wait(tasks, timeout=seconds * self._dice.random())
            await self._end(session, end, PATIENCE / 2 if orderly else 1.0)
            self._relay.release()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            theirs = unpacked(json.loads(await ask_books(questions)))
        for task in tasks:
            if not task.cancelled():
                task.result()
        stats = session.stats()
        if stats.streams or stats.memory_held or stats.bytes_queued:
            self.totals.wrong.append(f"session {self.sessions} still holds something: {stats}")
        self.totals.balance(entries, theirs, orderly=orderly)

    def _spoil(self, fault: str) -> None:
        relay, dice = self._relay, self._dice
        if fault == "reset":
            relay.reset()
        elif fault == "end":
            relay.end()
        elif fault == "cut":
            relay.cut_after(dice.choice(relay.ways), dice.randrange(1, 100_000), reset=False)
        elif fault == "black hole":
            relay.hold()
        elif fault == "one way":
            relay.hold(dice.choice(relay.ways))
        elif fault == "gap":
            relay.hold()
            asyncio.get_running_loop().call_later(dice.random() * 0.3, relay.release)
        elif fault == "slow":
            relay.shape(rate=dice.choice([200_000, 2_000_000]))
        elif fault == "far":
            relay.shape(delay=dice.random() * 0.1)

    async def _end(self, session: Session, how: str, patience: float) -> None:
        if how == "close":
            session.close()
        elif how == "abort":
            session.abort(1234)
        elif how == "shutdown":
            await session.shutdown(patience)
        else:
            async with session:
                pass
        await session.wait_closed()

    async def _work(self, session: Session, keys: itertools.count[int], entries: Entries) -> None:
        """Open one stream after the other; some are given up midway."""
        dice = random.Random(self._dice.random())
        while not session.closed:
            work = open_stream(session, Plan.any(next(keys), dice), entries)
            try:
                if dice.random() < 0.15:
                    await self._give_up(work, dice.random() * 0.05)
                else:
                    await work
            except SessionError:
                return
            except MuxadoError:
                pass

    async def _give_up(self, work: Coroutine[Any, Any, None], seconds: float) -> None:
        self.events["given up"] += 1
        try:
            await asyncio.wait_for(work, seconds)
        except TimeoutError as exc:
            if isinstance(exc, MuxadoError):  # the session has timed out
                raise

    async def _serve(self, session: Session, entries: Entries) -> None:
        with contextlib.suppress(MuxadoError):
            await session.serve(functools.partial(accept_stream, entries=entries))

    async def _ping(self, session: Session) -> None:
        with contextlib.suppress(MuxadoError):
            while True:
                await session.ping()
                self.pings += 1
                await asyncio.sleep(0.01)

    def __str__(self) -> str:
        totals = self.totals
        return (
            f"{self.sessions} sessions, {totals.streams} streams ({totals.done} as planned,"
            f" {totals.cut_short} cut short), {totals.bytes_sent / 1e6:.0f} MB sent,"
            f" {totals.bytes_received / 1e6:.0f} MB received, {self.pings} pings"
        )


async def ask_books(questions: Session) -> bytes:
    async with questions.open() as stream:
        stream.write_eof()
        return await stream.read()


async def soak(seconds: float, seed: int, loop: str) -> int:
    """Go on for so many seconds; return how many things went wrong."""
    start = shown = time.monotonic()
    with SoakPeer(loop) as peer, Relay(("127.0.0.1", peer.ports[0])) as relay:
        run = Soak(peer, relay, seed)
        async with muxado.connect("127.0.0.1", peer.ports[1]) as questions:
            while (now := time.monotonic()) < start + seconds and not run.totals.wrong:
                await run.session(questions, min(2.0, seconds / 4))
                if now - shown >= min(10.0, seconds / 4):
                    shown = now
                    memory = f"{resident():.1f} and {resident(peer.process.pid):.1f} MiB"
                    print(f"{now - start:6.0f} s  {memory}  {run}", flush=True)
    print(run)
    print(", ".join(f"{name}: {count}" for name, count in sorted(run.events.items())))
    for text in run.totals.wrong:
        print(f"WRONG: {text}")
    if not run.totals.wrong:
        print("every byte is accounted for")
    return len(run.totals.wrong)


async def short_streams(count: int, loop: str, at_once: int = 256) -> int:
    """Open so many streams on one session; return how much memory has grown, in MiB."""
    request = b"x" * 64
    step = max(1, count // 10)
    left = count
    with SoakPeer(loop) as peer:
        async with muxado.connect("127.0.0.1", peer.ports[0]) as session:

            async def work() -> None:
                nonlocal left
                while left > 0:
                    left -= 1
                    if left % step == 0:
                        show()
                    assert await ask(session, request) == request

            def show() -> None:
                sizes.append((resident(), resident(peer.process.pid)))
                print(
                    f"{session.stats().streams_opened:9} streams"
                    f"  {time.monotonic() - start:6.1f} s"
                    f"  {sizes[-1][0]:.1f} and {sizes[-1][1]:.1f} MiB",
                    flush=True,
                )

            sizes: list[tuple[float, float]] = []
            start = time.monotonic()
            async with asyncio.TaskGroup() as group:
                for _ in range(at_once):
                    group.create_task(work())
            assert session.stats().streams == 0
    grown = max(last - first for first, last in zip(sizes[0], sizes[-1], strict=True))
    print(f"grown by {grown:.1f} MiB since the first tenth")
    return int(grown)


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=300.0, help="how long (300)")
    parser.add_argument("--seed", type=int, default=1, help="of the plans (1)")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--streams", type=int, help="instead, so many short streams on one session")
    args = parser.parse_args()
    failures = 0

    async def work() -> None:
        nonlocal failures
        if args.streams:
            failures = await short_streams(args.streams, args.loop) >= 1
        else:
            failures = await soak(args.seconds, args.seed, args.loop)

    run(work(), args.loop)
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
