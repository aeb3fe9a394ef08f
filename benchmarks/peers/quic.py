"""aioquic: a QUIC connection with a stream per request. TLS is a part of QUIC."""

from __future__ import annotations

import asyncio

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer
from aioquic.quic.configuration import QuicConfiguration

from .common import HOST, Options, Result, announce_port, read_port, run_peer
from .work import PairStream, StreamClient, StreamServer, run_loop

ALPN = ["bench"]


MOST_QUEUED = 256 * 1024


class QuicStream(PairStream):
    """A QUIC stream whose writer waits: aioquic's own takes everything at once, without end."""

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        adapter = self.writer.transport
        connection = adapter.protocol._quic  # type: ignore[attr-defined]
        stream = connection._streams.get(adapter.stream_id)  # type: ignore[attr-defined]
        if stream is None:
            return
        while len(stream.sender._buffer) > MOST_QUEUED:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.0005)


def serve(options: Options) -> None:
    """Serve connections until the process is ended."""
    server = StreamServer()
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.handle(QuicStream(reader, writer))
        writer.write_eof()

    def on_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(handle(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def main() -> None:
        assert options.tls_dir is not None
        config = QuicConfiguration(is_client=False, alpn_protocols=ALPN)
        config.load_cert_chain(options.tls_dir / "chain.pem", options.tls_dir / "key.pem")
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: QuicServer(
                configuration=config,
                create_protocol=QuicConnectionProtocol,
                stream_handler=on_stream,
            ),
            local_addr=(HOST, 0),
        )
        announce_port(transport.get_extra_info("sockname")[1])
        await asyncio.Event().wait()

    run_loop(options.loop, main)


def drive(options: Options) -> Result:
    """Run one cell."""

    async def main() -> Result:
        assert options.tls_dir is not None
        config = QuicConfiguration(alpn_protocols=ALPN, server_name=HOST)
        config.load_verify_locations(str(options.tls_dir / "authority.pem"))
        async with connect(HOST, read_port(), configuration=config) as connection:

            async def open_stream() -> QuicStream:
                return QuicStream(*await connection.create_stream())

            async def request(data: bytes) -> bytes:
                reader, writer = await connection.create_stream()
                writer.write(data)
                writer.write_eof()
                reply: bytes = await reader.readexactly(len(data))
                return reply

            return await StreamClient(options.work, open_stream, request).run()

    return run_loop(options.loop, main)


if __name__ == "__main__":
    run_peer(["aioquic"], serve, drive)
