"""One code on asyncio and on trio: streams and sessions as anyio has them."""

import anyio
import sniffio

import muxado
import muxado.trio
from muxado.adapters.anyio import ByteStream, StreamListener


async def shout(stream: ByteStream) -> None:
    async with stream:
        async for data in stream:
            await stream.send(data.upper())


async def ask(stream: ByteStream, text: bytes) -> None:
    async with stream:
        await stream.send(text)
        await stream.send_eof()
        answer = b"".join([data async for data in stream])
        print(f"{sniffio.current_async_library()}: {answer.decode()}")
        assert answer == text.upper()


async def on_asyncio() -> None:
    async def serve(session: muxado.Session) -> None:
        await StreamListener(session).serve(shout)

    async with muxado.serve(serve, "127.0.0.1", 0) as server:
        host, port = server.addresses[0]
        async with muxado.connect(host, port) as session:
            await ask(ByteStream(session.open()), b"a stream")


async def on_trio() -> None:
    async with (
        muxado.trio.listen("127.0.0.1", 0) as listener,
        anyio.create_task_group() as group,
    ):
        host, port = listener.addresses[0]
        async with muxado.trio.connect(host, port) as session:
            group.start_soon(StreamListener(await listener.accept()).serve, shout)
            await ask(ByteStream(session.open()), b"a stream")


anyio.run(on_asyncio)
anyio.run(on_trio, backend="trio")
