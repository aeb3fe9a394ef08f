"""asyncio's own protocols, readers and writers, unchanged, over the streams of one session."""

import asyncio

import muxado


class Upper(asyncio.Protocol):
    """Any protocol will do; this one answers in capital letters."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data.upper())


async def serve(session: muxado.Session) -> None:
    await session.create_server(Upper).serve_forever()  # as loop.create_server(Upper, ...)


async def main() -> None:
    async with muxado.serve(serve, "127.0.0.1", 0) as server:
        host, port = server.addresses[0]
        async with muxado.connect(host, port) as session:
            (
                reader,
                writer,
            ) = await session.open_connection()  # as asyncio.open_connection(...)
            writer.write(b"a stream as reader and writer\n")
            answer = await reader.readline()
            print(answer.decode().strip())
            writer.close()
            await writer.wait_closed()
    assert answer == b"A STREAM AS READER AND WRITER\n"


asyncio.run(main())
