"""A py-libp2p endpoint of yamux for the interoperability tests, straight over TCP, or over TLS.

It runs in an environment of its own (`pip install libp2p==0.8.1`), makes one session, echoes what
comes on accepted streams, and is driven like the Go peers: a JSON object per line on stdin, replies
and events on stdout. The commands are `check` (`n`) and `many` (`count`, `max`).
"""

from __future__ import annotations

import argparse
import json
import random
import ssl
import sys
from typing import Any

import trio
from libp2p.io.trio import TrioTCPStream
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamEOF
from libp2p.stream_muxer.yamux.yamux import Yamux


class Connection(TrioTCPStream):
    """A connection that passes for one that libp2p has secured."""

    is_initiator: bool


def say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


async def read_all(stream: Any) -> bytes:
    received = b""
    try:
        while data := await stream.read(65536):
            received += data
    except MuxedStreamEOF:
        pass
    return received


async def echo(stream: Any) -> None:
    count = 0
    try:
        while data := await stream.read(65536):
            await stream.write(data)
            count += len(data)
    except MuxedStreamEOF:
        pass
    await stream.close()
    say(event="stream-done", read=count)


async def check(mux: Any, size: int) -> int:
    """Send so many bytes, and compare what comes back."""
    data = random.randbytes(size)
    stream = await mux.open_stream()
    received = b""

    async def send() -> None:
        for at in range(0, size, 40_000):
            await stream.write(data[at : at + 40_000])
        await stream.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        received = await read_all(stream)
    if received != data:
        raise ValueError(f"{len(received)} bytes came back of {size}")
    return size


async def perform(mux: Any, order: dict[str, Any]) -> None:
    try:
        if order["cmd"] == "check":
            reply = {"received": await check(mux, order["n"])}
        else:
            async with trio.open_nursery() as nursery:
                for _ in range(order["count"]):
                    nursery.start_soon(check, mux, 1 + random.randrange(order["max"]))
            reply = {"good": order["count"]}
        say(id=order["id"], ok=True, **reply)
    except BaseException as exc:
        say(id=order["id"], ok=False, error=repr(exc))
        raise


async def connect(options: argparse.Namespace) -> Any:
    """Return a connection; the end that listens is TLS's server, if files for that are given."""
    host, port = (options.dial or options.listen).split(":")
    if options.dial:
        stream = await trio.open_tcp_stream(host, int(port))
        if not options.ca:
            return stream
        context = ssl.create_default_context(cafile=options.ca)
        return trio.SSLStream(stream, context, server_hostname=host)
    (listener,) = await trio.open_tcp_listeners(int(port), host=host)
    say(event="listening", addr="{}:{}".format(*listener.socket.getsockname()))
    stream = await listener.accept()
    if not options.cert:
        return stream
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(options.cert, options.key)
    return trio.SSLStream(stream, context, server_side=True)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-role")
    parser.add_argument("-listen")
    parser.add_argument("-dial")
    parser.add_argument("-ca")
    parser.add_argument("-cert")
    parser.add_argument("-key")
    parser.add_argument("-timeout")
    options = parser.parse_args()
    connection = Connection(await connect(options))
    connection.is_initiator = options.role == "client"
    mux = Yamux(connection, ID(b"peer"), is_initiator=connection.is_initiator)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mux.start)
        await mux.event_started.wait()
        say(event="session")

        async def accept() -> None:
            try:
                while True:
                    nursery.start_soon(echo, await mux.accept_stream())
            except MuxedConnUnavailable:
                say(event="session-end")

        nursery.start_soon(accept)
        async for line in trio.wrap_file(sys.stdin):
            nursery.start_soon(perform, mux, json.loads(line))
        nursery.cancel_scope.cancel()


trio.run(main)
