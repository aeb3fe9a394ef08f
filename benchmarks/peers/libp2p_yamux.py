"""py-libp2p's yamux on trio, straight over TCP: without its handshakes and encryption."""

from __future__ import annotations

import json
import time
from typing import Any

import trio
from libp2p.io.trio import TrioTCPStream
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamEOF
from libp2p.stream_muxer.yamux.yamux import Yamux

from .common import (
    HOST,
    Clock,
    Counters,
    Options,
    Result,
    Work,
    WrongDataError,
    announce_port,
    bulk_result,
    cpu_seconds,
    latencies_result,
    read_port,
    run_peer,
)
from .protocol import (
    BLOCK,
    DIRECTIONS,
    DOWN,
    ECHO,
    HEADER_SIZE,
    READ_SIZE,
    REPORT,
    UP,
    Checker,
    Header,
    echo_data,
    unpack_header,
)


class Connection(TrioTCPStream):
    """A TCP connection that passes for a secured one."""

    is_initiator: bool

    def __init__(self, stream: trio.SocketStream, is_initiator: bool) -> None:
        super().__init__(stream)
        self.is_initiator = is_initiator


def new_mux(stream: trio.SocketStream, *, client: bool) -> Any:
    """Make a yamux session over a TCP connection."""
    return Yamux(Connection(stream, client), ID(b"peer"), is_initiator=client)


async def read_some(stream: Any) -> bytes:
    """Return some bytes, b"" at the end."""
    try:
        data: bytes = await stream.read(READ_SIZE)
    except MuxedStreamEOF:
        return b""
    return data


def serve(options: Options) -> None:
    """Serve sessions until the process is ended."""
    counters = Counters()

    async def handle(stream: Any) -> None:
        data = await read_some(stream)
        while len(data) < HEADER_SIZE:
            data += await read_some(stream)
        header = unpack_header(data)
        if header.op == ECHO:
            while len(data) < header.size:
                data += await read_some(stream)
            await stream.write(data)
        elif header.op == REPORT:
            await stream.write(counters.report())
        elif header.op == UP:
            checker = await receive_all(stream, header, data[HEADER_SIZE:])
            counters.received += checker.received
            counters.window += checker.window
            counters.wrong += checker.wrong
        elif header.op == DOWN:
            sent = await send_until(stream, header.end)
            counters.sent += sent
        await stream.close()

    async def connected(tcp: trio.SocketStream) -> None:
        mux = new_mux(tcp, client=False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mux.start)
            try:
                while True:
                    nursery.start_soon(handle, await mux.accept_stream())
            except MuxedConnUnavailable:
                nursery.cancel_scope.cancel()

    async def main() -> None:
        listeners = await trio.open_tcp_listeners(0, host=HOST)
        announce_port(listeners[0].socket.getsockname()[1])
        await trio.serve_listeners(connected, listeners)

    trio.run(main)


async def send_until(stream: Any, end: int) -> int:
    """Write blocks until a time; return how many bytes that were."""
    sent = 0
    while time.time_ns() < end:
        await stream.write(BLOCK)
        sent += len(BLOCK)
    return sent


async def receive_all(stream: Any, header: Header, early: bytes = b"") -> Checker:
    """Read to the stream's end, and count."""
    checker = Checker(header.start, header.end)
    if early:
        checker.add(early)
    while data := await read_some(stream):
        checker.add(data)
    return checker


def drive(options: Options) -> Result:
    """Run one cell."""

    async def main() -> Result:
        mux = new_mux(await trio.open_tcp_stream(HOST, read_port()), client=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mux.start)
            await mux.event_started.wait()
            work = {"requests": requests, "bulk": bulk}[options.work.work]
            result = await work(mux, options.work)
            nursery.cancel_scope.cancel()
        return result

    return trio.run(main)


async def requests(mux: Any, work: Work) -> Result:
    """Make requests, so many at once."""
    latencies: list[float] = []
    clock = Clock(work)

    async def worker(number: int) -> None:
        data = echo_data(work.payload, number)
        begun = time.perf_counter()
        while begun < clock.fine_end:
            stream = await mux.open_stream()
            await stream.write(data)
            reply = b""
            while len(reply) < len(data) and (more := await read_some(stream)):
                reply += more
            await stream.close()
            if reply != data:
                raise WrongDataError("a reply")
            now = time.perf_counter()
            if clock.fine_start < now < clock.fine_end:
                latencies.append(now - begun)
            begun = now

    async with trio.open_nursery() as nursery:
        for number in range(work.concurrency):
            nursery.start_soon(worker, number)
    report = await get_report(mux)
    return latencies_result(latencies) | {
        "rate": len(latencies) / work.seconds,
        "server_cpu": report["cpu"],
        "client_cpu": cpu_seconds(),
    }


async def bulk(mux: Any, work: Work) -> Result:
    """Transfer on streams at once, one way."""
    clock = Clock(work)
    header = Header(DIRECTIONS[work.direction], 0, clock.start, clock.end)
    checkers: list[Checker] = []
    sent = 0

    async def one() -> None:
        nonlocal sent
        stream = await mux.open_stream()
        await stream.write(header.pack())
        if header.op == UP:
            mine = await send_until(stream, header.end)
            sent += mine
            await stream.close()
        checkers.append(await receive_all(stream, header))

    async with trio.open_nursery() as nursery:
        for _ in range(work.concurrency):
            nursery.start_soon(one)
    if any(checker.wrong for checker in checkers):
        raise WrongDataError("chunks at the client")
    received = sum(checker.received for checker in checkers)
    window = sum(checker.window for checker in checkers)
    return bulk_result(work, received, window, sent, await get_report(mux))


async def get_report(mux: Any) -> Result:
    """Return the server's counters."""
    stream = await mux.open_stream()
    await stream.write(Header(REPORT).pack())
    data = b""
    while more := await read_some(stream):
        data += more
    result: Result = json.loads(data)
    return result


if __name__ == "__main__":
    run_peer(["libp2p"], serve, drive)
