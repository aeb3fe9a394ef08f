"""muxado v1: jobs for a program of the first generation, each with its type and its priority.

    python muxado_v1.py serve PORT
    python muxado_v1.py ask HOST PORT
    python muxado_v1.py                  both ends here, on loopback

Type and priority stand in the frame that opens a stream: the server has them before the first byte.
"""

import asyncio
import sys
from contextlib import AbstractAsyncContextManager

import muxado

V1 = muxado.Config(wire="muxado-v1")

JOBS = [  # type, priority
    (1, 0),
    (0x01020304, 1),
    (0xFFFFFEFE, 2),
]


async def ask(session: muxado.Session, kind: int, priority: int, job: bytes) -> bytes:
    """Return what the other end makes of a job."""
    async with session.open(type=kind, priority=priority) as stream:
        await stream.write(job)
        return await stream.read()


async def answer(stream: muxado.Stream) -> None:
    """Do a job. Its answer is sent with the priority that the client has given it."""
    job = await stream.readexactly(4)
    print(f"type {stream.type:#x}, priority {stream.peer_priority}")
    await stream.write(f"{stream.type:08x}:".encode() + job)


async def client(host: str, port: int) -> list[bytes]:
    async with muxado.connect(host, port, config=V1) as session:
        return [await ask(session, kind, priority, b"data") for kind, priority in JOBS]


def server(port: int) -> AbstractAsyncContextManager[muxado.Server]:
    return muxado.serve_streams(answer, "127.0.0.1", port, config=V1)


async def main() -> None:
    match sys.argv[1:]:
        case ["serve", port]:
            async with server(int(port)) as running:
                await running.serve_forever()
        case ["ask", host, port]:
            print(await client(host, int(port)))
        case _:
            async with server(0) as running:
                print(await client(*running.addresses[0]))


if __name__ == "__main__":
    asyncio.run(main())
