"""The protocol's two sides for whatever has streams: on asyncio, on trio, and in threads.

How things are done at once is an `Engine`'s business. In threads nothing here ever waits for a
loop: `finish` runs each coroutine to its end in one step.
"""

from __future__ import annotations

import asyncio
import json
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar

from .common import (
    Clock,
    Counters,
    Mark,
    Result,
    Work,
    WrongDataError,
    bulk_result,
    cpu_seconds,
    latencies_result,
    load_between,
    mark,
    resident,
)
from .protocol import (
    BLOCK,
    BOTH,
    CLOCK,
    DIRECTIONS,
    DOWN,
    ECHO,
    HEADER_SIZE,
    PATTERN,
    PING,
    PING_SIZE,
    READ_SIZE,
    REPORT,
    UP,
    Checker,
    Header,
    echo_data,
    unpack_header,
)

T = TypeVar("T")
Step = Callable[[], Coroutine[Any, Any, T]]


class Engine(Protocol):
    """How several things are done at once, and how time passes."""

    async def together(self, *steps: Step[T]) -> list[T]:
        """Take steps at once, and return their results, in order."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""


class AsyncioEngine:
    """Tasks of asyncio."""

    async def together(self, *steps: Step[T]) -> list[T]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(step()) for step in steps]
        return [task.result() for task in tasks]

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ThreadsEngine:
    """A thread for each step but the last, which is taken here."""

    async def together(self, *steps: Step[T]) -> list[T]:
        results: dict[int, T] = {}

        def take(number: int, step: Step[T]) -> None:
            results[number] = finish(step())

        *others, last = enumerate(steps)
        threads = [threading.Thread(target=take, args=each, daemon=True) for each in others]
        for thread in threads:
            thread.start()
        take(*last)
        for thread in threads:
            thread.join()
        return [results[number] for number in range(len(steps))]

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251  # there is no loop


def finish(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for no loop, and return its result."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise RuntimeError("the coroutine waits for a loop")


class Stream(Protocol):
    """What the contenders' streams have in common; muxado's own stream on asyncio is one."""

    async def read(self, n: int = -1) -> bytes:
        """Return some bytes, b"" at the end."""

    async def write(self, data: bytes) -> None:
        """Send bytes, waiting while too much is queued."""

    def write_eof(self) -> None:
        """End the writing direction."""

    def close(self) -> None:
        """End both directions, after what was written."""


class PairStream:
    """A stream made of an asyncio reader and writer."""

    __slots__ = ("reader", "writer")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def read(self, n: int = -1) -> bytes:
        return await self.reader.read(n)

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def write_eof(self) -> None:
        self.writer.write_eof()

    def close(self) -> None:
        self.writer.close()


class StreamServer:
    """Answers streams."""

    def __init__(self, engine: Engine | None = None) -> None:
        self._engine = engine or AsyncioEngine()
        self.counters = Counters()
        self.kept: list[Stream] = []

    async def handle(self, stream: Stream, keep: bool = False) -> None:
        """Do what a stream's header says. The caller closes the stream, unless it was kept.

        Args:
            stream: the stream.
            keep: only remember an idle stream, instead of waiting for what it brings.
        """
        data = await stream.read(READ_SIZE)
        while len(data) < HEADER_SIZE:
            more = await stream.read(READ_SIZE)
            if not more:
                return
            data += more
        op = data[0]
        if op == ECHO:
            size = unpack_header(data).size
            while len(data) < size:
                data += await stream.read(READ_SIZE)
            await stream.write(data)
        elif op == PING:
            if keep:
                self.kept.append(stream)
            else:
                await _answer_pings(stream, data[HEADER_SIZE:])
        elif op == REPORT:
            await stream.write(self.counters.report())
        elif op == CLOCK:
            await stream.write(json.dumps(mark()).encode())
        else:
            await self._bulk(stream, unpack_header(data), data[HEADER_SIZE:])

    async def _bulk(self, stream: Stream, header: Header, early: bytes) -> None:
        async def send() -> None:
            sent = await send_until(stream, header.end)
            self.counters.sent += sent

        async def receive() -> None:
            checker = await receive_all(stream, header, early)
            self.counters.received += checker.received
            self.counters.window += checker.window
            self.counters.wrong += checker.wrong

        if header.op == DOWN:
            await send()
        elif header.op == UP:
            await receive()
        else:
            await self._engine.together(send, receive)


async def _answer_pings(stream: Stream, data: bytes) -> None:
    while True:
        if data:
            await stream.write(data)
        data = await stream.read(READ_SIZE)
        if not data:
            return


async def send_until(stream: Stream, end: int) -> int:
    """Write blocks until a time; return how many bytes that were."""
    sent = 0
    while time.time_ns() < end:
        await stream.write(BLOCK)
        sent += len(BLOCK)
    return sent


async def receive_all(stream: Stream, header: Header, early: bytes = b"") -> Checker:
    """Read to the stream's end, and count."""
    checker = Checker(header.start, header.end)
    if early:
        checker.add(early)
    while data := await stream.read(READ_SIZE):
        checker.add(data)
    return checker


class StreamClient:
    """Runs cells over one session.

    Args:
        work: the cell.
        open_stream: opens a stream.
        request: one whole life of a stream: open, write, read the reply, close.
        engine: how things are done at once; asyncio's by default.
    """

    def __init__(
        self,
        work: Work,
        open_stream: Callable[[], Awaitable[Stream]],
        request: Callable[[bytes], Awaitable[bytes]],
        engine: Engine | None = None,
    ) -> None:
        self.work = work
        self._engine = engine or AsyncioEngine()
        self._open = open_stream
        self._request = request
        self._clock = Clock(work)

    async def run(self) -> Result:
        """Do the work and return its figures."""
        kinds = {
            "requests": self._requests,
            "bulk": self._bulk,
            "ping": self._ping,
            "idle": self._idle,
            "short": self._short,
        }
        return await kinds[self.work.work]()

    async def report(self) -> Result:
        """Return the server's counters."""
        return await self._ask(REPORT)

    async def _ask(self, op: int) -> Result:
        stream = await self._open()
        await stream.write(Header(op).pack())
        data = b""
        while more := await stream.read(READ_SIZE):
            data += more
        stream.close()
        result: Result = json.loads(data)
        return result

    async def _measured(self, *steps: Step[T]) -> tuple[list[T], float]:
        """Take steps at once; return their results, and how busy both ends were meanwhile."""
        loads: list[float] = []
        results: list[T] = []

        async def work() -> None:
            results.extend(await self._engine.together(*steps))

        async def watch() -> None:
            before = await self._marks_at(self._clock.start)
            after = await self._marks_at(self._clock.end)
            loads.append(sum(map(load_between, before, after)))

        await self._engine.together(watch, work)
        return results, loads[0]

    async def _marks_at(self, moment: int) -> list[Mark]:
        """Return both ends' marks at a time, as near as it can be had."""
        await self._engine.sleep(max(0.0, (moment - time.time_ns()) / 1e9))
        return [mark(), await self._ask(CLOCK)]

    async def _requests(self) -> Result:
        latencies: list[float] = []

        def lane(number: int) -> Step[None]:
            return lambda: self._request_on(number, latencies)

        _, load = await self._measured(*map(lane, range(self.work.concurrency)))
        report = await self.report()
        rate = len(latencies) / self.work.seconds
        return latencies_result(latencies) | {
            "rate": rate,
            "cpu_us": 1e6 * load / rate if rate else 0.0,
            "server_cpu": report["cpu"],
            "client_cpu": cpu_seconds(),
        }

    async def _request_on(self, number: int, latencies: list[float]) -> None:
        data = echo_data(self.work.payload, number)
        request = self._request
        start, end = self._clock.fine_start, self._clock.fine_end
        clock = time.perf_counter
        begun = clock()
        while begun < end:
            if await request(data) != data:
                raise WrongDataError("a reply")
            now = clock()
            if start < now < end:
                latencies.append(now - begun)
            begun = now

    async def _bulk(self) -> Result:
        moved, load = await self._measured(*[self._transfer] * self.work.concurrency)
        result = self._bulk_result(moved, await self.report())
        result["cpu_gib"] = 1024 * load / result["mib_s"] if result["mib_s"] else 0.0
        return result

    def _bulk_result(self, moved: list[tuple[Checker, int]], report: Result) -> Result:
        checkers = [checker for checker, _ in moved]
        if any(checker.wrong for checker in checkers):
            raise WrongDataError("chunks at the client")
        received = sum(checker.received for checker in checkers)
        window = sum(checker.window for checker in checkers)
        return bulk_result(self.work, received, window, sum(sent for _, sent in moved), report)

    async def _transfer(self) -> tuple[Checker, int]:
        """Run one bulk stream to its end; return what came on it, and how much was sent."""
        op = DIRECTIONS[self.work.direction]
        header = Header(op, 0, self._clock.start, self._clock.end)
        stream = await self._open()
        await stream.write(header.pack())
        checkers: list[Checker] = []
        sent = 0

        async def receive() -> None:
            checkers.append(await receive_all(stream, header))

        async def send() -> None:
            nonlocal sent
            if op in (UP, BOTH):
                sent = await send_until(stream, header.end)
                stream.write_eof()

        await self._engine.together(receive, send)
        stream.close()
        return checkers[0], sent

    async def _ping(self) -> Result:
        stream = await self._open()
        await stream.write(Header(PING).pack())
        latencies: list[float] = []
        moved: list[tuple[Checker, int]] = []

        async def move() -> None:
            moved.append(await self._transfer())

        async def ping() -> None:
            await self._ping_on(stream, latencies)

        await self._engine.together(*[move] * self.work.concurrency, ping)
        stream.close()
        return latencies_result(latencies) | self._bulk_result(moved, await self.report())

    async def _ping_on(self, stream: Stream, latencies: list[float]) -> None:
        clock = time.perf_counter
        start, end = self._clock.fine_start, self._clock.fine_end
        number = 0
        while (begun := clock()) < end:
            message = PATTERN[: PING_SIZE - 8] + struct.pack(">Q", number)
            number += 1
            await stream.write(message)
            reply = await stream.read(PING_SIZE)
            while len(reply) < PING_SIZE:
                reply += await stream.read(PING_SIZE - len(reply))
            now = clock()
            if reply != message:
                raise WrongDataError("a ping's reply")
            if start < now < end:
                latencies.append(now - begun)

    async def _idle(self) -> Result:
        """Open streams that then do nothing; what one costs each end."""
        kept: list[Stream] = []
        await self._open_idle(kept, 1000)
        mine, before = resident(), await self.report()
        begun = time.perf_counter()
        await self._open_idle(kept, self.work.streams)
        seconds = time.perf_counter() - begun
        after = await self.report()
        own = resident()
        if self.work.handler:
            await self._check_idle(kept)
        await self._request(echo_data(64, 0))
        scale = 1024 * self.work.streams
        return {
            "kib_per_stream": (after["rss"] - before["rss"]) / scale,
            "client_kib_per_stream": (own - mine) / scale,
            "streams": len(kept),
            "open_rate": self.work.streams / seconds,
            "server_rss_mib": after["rss"] / 2**20,
            "client_rss_mib": own / 2**20,
        }

    async def _open_idle(self, kept: list[Stream], count: int) -> None:
        for number in range(count):
            stream = await self._open()
            await stream.write(Header(PING).pack())
            kept.append(stream)
            if number % 100 == 99:  # so that the server has taken them all
                await self._request(echo_data(64, 0))

    async def _check_idle(self, kept: list[Stream]) -> None:
        for stream in kept[:: max(1, len(kept) // 100)]:
            await stream.write(PATTERN[:PING_SIZE])
            if await stream.read(PING_SIZE) != PATTERN[:PING_SIZE]:
                raise WrongDataError("an idle stream's answer")

    async def _short(self) -> Result:
        """Run many short streams on one session, and follow both ends' memory."""
        begun = time.perf_counter()
        done = 0
        series: list[tuple[int, float, float]] = []
        total = self.work.streams
        for goal in [min(10_000, total), *(total * i // 20 for i in range(1, 21))]:
            if goal > done:
                await self._run_short(goal - done)
                done = goal
                rss = (await self.report())["rss"]
                series.append((done, rss / 2**20, resident() / 2**20))
        seconds = time.perf_counter() - begun
        _, server_first, client_first = series[0]
        _, server_last, client_last = series[-1]
        return {
            "growth_mib": max(server_last - server_first, client_last - client_first),
            "server_rss_mib": server_last,
            "client_rss_mib": client_last,
            "server_first_mib": server_first,
            "client_first_mib": client_first,
            "streams": done,
            "rate": done / seconds,
            "series": series,
        }

    async def _run_short(self, count: int) -> None:
        left = iter(range(count))

        async def worker(number: int) -> None:
            data = echo_data(self.work.payload, number)
            for _ in left:
                if await self._request(data) != data:
                    raise WrongDataError("a reply")

        await self._engine.together(
            *[lambda number=number: worker(number) for number in range(self.work.concurrency)]
        )


def run_loop(loop: str, main: Callable[[], Awaitable[Result | None]]) -> Result:
    """Run a coroutine function to its end in a new event loop of the named kind."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop

    async def run() -> Result:
        return await main() or {}

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(run())
