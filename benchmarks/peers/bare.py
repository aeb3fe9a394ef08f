"""One bare TCP connection on asyncio: no streams, the limit for bulk and ping.

A `BufferedProtocol` with as big a read buffer as muxado's, doing everything in its callbacks.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time

from .common import (
    HOST,
    Clock,
    Counters,
    Mark,
    Options,
    Result,
    WrongDataError,
    announce_port,
    bulk_result,
    latencies_result,
    load_between,
    mark,
    read_port,
    run_peer,
)
from .protocol import (
    BLOCK,
    BOTH,
    CLOCK,
    DIRECTIONS,
    DOWN,
    HEADER_SIZE,
    PATTERN,
    PING,
    PING_SIZE,
    REPORT,
    UP,
    Checker,
    Header,
    unpack_header,
)

BUFFER_SIZE = 256 * 1024
BLOCKS_PER_TURN = 4


class Bare(asyncio.BufferedProtocol):
    """What both ends share: the buffer, and the writing of blocks."""

    def __init__(self) -> None:
        self.buffer = bytearray(BUFFER_SIZE)
        self.view = memoryview(self.buffer)
        self.transport: asyncio.Transport
        self.checker: Checker | None = None
        self.sent = 0
        self._writable = True
        self._sending_until = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.view

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        if self._sending_until:
            self._send()

    def start_sending(self, end: int) -> None:
        """Write blocks until a time; then `sending_done` is called."""
        self._sending_until = end
        self._send()

    def _send(self) -> None:
        for _ in range(BLOCKS_PER_TURN):
            if not self._writable:
                return
            if time.time_ns() >= self._sending_until:
                self._sending_until = 0
                self.sending_done()
                return
            self.transport.write(BLOCK)
            self.sent += len(BLOCK)
        if self._writable:
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._sending_until and self._writable:
            self._send()

    def sending_done(self) -> None:
        """Everything that is to be sent was written."""


class BareServer(Bare):
    """Does what the connection's header says."""

    def __init__(self, counters: Counters) -> None:
        super().__init__()
        self._counters = counters
        self._op = 0
        self._open_ends = 1  # of the two that must end before the connection is closed

    def buffer_updated(self, nbytes: int) -> None:
        data = self.view[:nbytes]
        if not self._op:
            header = unpack_header(data)  # a header is always the first segment of its own
            self._begin(header)
            data = data[HEADER_SIZE:]
            if not len(data):
                return
        if self._op == PING:
            self.transport.write(bytes(data))
        elif self.checker is not None:
            self.checker.add(data)

    def _begin(self, header: Header) -> None:
        self._op = header.op
        if header.op in (UP, BOTH):
            self.checker = Checker(header.start, header.end)
        if header.op == REPORT:
            self.transport.write(self._counters.report())
            self.transport.close()
        if header.op == CLOCK:
            self.transport.write(json.dumps(mark()).encode())
            self.transport.close()
        if header.op in (DOWN, BOTH):
            self._open_ends += 1
            self.start_sending(header.end)

    def sending_done(self) -> None:
        self._counters.sent += self.sent
        self._end()

    def eof_received(self) -> bool:
        if self.checker is not None:
            self._counters.received += self.checker.received
            self._counters.window += self.checker.window
            self._counters.wrong += self.checker.wrong
        self._end()
        return True

    def _end(self) -> None:
        self._open_ends -= 1
        if not self._open_ends:
            self.transport.close()


class BareClient(Bare):
    """Gathers what comes, or times pings."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gathered = bytearray()
        self.latencies: list[float] = []
        self._clock: Clock | None = None
        self._message = b""
        self._number = 0
        self._begun = 0.0

    def start_pings(self, clock: Clock) -> None:
        """Send pings, one after the other, until the measured time ends."""
        self._clock = clock
        self._ping()

    def _ping(self) -> None:
        self._message = PATTERN[: PING_SIZE - 8] + struct.pack(">Q", self._number)
        self._number += 1
        self._begun = time.perf_counter()
        self.transport.write(self._message)

    def buffer_updated(self, nbytes: int) -> None:
        if self.checker is not None:
            self.checker.add(self.view[:nbytes])
            return
        self.gathered += self.view[:nbytes]
        if self._clock is None or len(self.gathered) < PING_SIZE:
            return
        now = time.perf_counter()
        if self.gathered != self._message and not self.ended.done():
            self.ended.set_exception(WrongDataError("a ping's reply"))
        self.gathered.clear()
        if self._clock.fine_start < now < self._clock.fine_end:
            self.latencies.append(now - self._begun)
        if now < self._clock.fine_end:
            self._ping()
        elif not self.ended.done():
            self.ended.set_result(None)

    def sending_done(self) -> None:
        self.transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def serve_connections() -> None:
    """Serve until the process is ended."""
    counters = Counters()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: BareServer(counters), HOST, 0)
    announce_port(listening.sockets[0].getsockname()[1])
    await asyncio.Event().wait()


async def dial(port: int, header: Header) -> BareClient:
    """Connect and send a header."""
    loop = asyncio.get_running_loop()
    _, client = await loop.create_connection(BareClient, HOST, port)
    client.transport.write(header.pack())
    return client


async def ask(port: int, op: int) -> Result:
    """Have the server tell something of itself."""
    client = await dial(port, Header(op))
    await client.ended
    told: Result = json.loads(client.gathered)
    return told


async def measure_load(port: int, clock: Clock) -> float:
    """Return how busy both ends are in the measured time."""

    async def marks_at(moment: int) -> list[Mark]:
        await asyncio.sleep(max(0.0, (moment - time.time_ns()) / 1e9))
        return [mark(), await ask(port, CLOCK)]  # type: ignore[list-item]  # JSON

    before = await marks_at(clock.start)
    return sum(map(load_between, before, await marks_at(clock.end)))


async def run_cell(options: Options) -> Result:
    """Run one cell."""
    work = options.work
    port = read_port()
    clock = Clock(work)
    if work.work == "ping":
        client = await dial(port, Header(PING))
        client.start_pings(clock)
        await client.ended
        return latencies_result(client.latencies)
    op = DIRECTIONS[work.direction]
    load = asyncio.create_task(measure_load(port, clock))
    client = await dial(port, Header(op, 0, clock.start, clock.end))
    client.checker = Checker(clock.start, clock.end)
    if op in (UP, BOTH):
        client.start_sending(clock.end)
    else:
        client.transport.write_eof()
    await client.ended
    if client.checker.wrong:
        raise WrongDataError("chunks at the client")
    report = await ask(port, REPORT)
    checker = client.checker
    result = bulk_result(work, checker.received, checker.window, client.sent, report)
    return result | {"cpu_gib": 1024 * await load / result["mib_s"]}


def serve(options: Options) -> None:
    """Serve connections until the process is ended."""
    from .work import run_loop

    run_loop(options.loop, serve_connections)


def drive(options: Options) -> Result:
    """Run one cell."""
    from .work import run_loop

    return run_loop(options.loop, lambda: run_cell(options))


if __name__ == "__main__":
    run_peer([], serve, drive)
