"""Forwards ports over one connection, in both directions, as ``ssh -L`` and ``ssh -R`` do.

Each side listens on the ports it is told to, and connects where the other side says. A connection
is a stream, whose first message says where it leads. An end is passed on as an end, and a reset as
a reset. A client reaches all that the other side reaches: put it behind TLS with
certificates, and check `place`.
"""

import asyncio
import socket
import struct

import muxado
from muxado.framing import receive_message, send_message


async def forward(session: muxado.Session, port: int, place: str) -> asyncio.Server:
    """Forward connections to a port here to a place, ``host:port``, on the other side."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = session.open()
        await send_message(stream, place.encode())
        await muxado.relay(stream, (reader, writer))

    return await asyncio.start_server(pass_on, "127.0.0.1", port)


async def connect(stream: muxado.Stream) -> None:
    """Connect a stream to where it leads; if that fails, the stream is reset."""
    place = (await receive_message(stream) or b"").decode()
    host, _, port = place.rpartition(":")
    try:
        connection = await asyncio.open_connection(host, int(port))
    except (OSError, ValueError) as exc:
        print(f"no connection to {place}: {type(exc).__name__}")
        stream.reset()
    else:
        await muxado.relay(stream, connection)


# What follows shows it: services on both sides, each used from the other one


async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write((await reader.read()).upper())  # all that comes, up to the end
    writer.close()


async def crash(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"half of it")
    await reader.readline()
    writer.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
    )
    writer.transport.abort()  # with a TCP reset


async def use(server: asyncio.Server) -> str:
    """Say something to a port, and the end; return what comes back."""
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        writer.write(b"hello\n")
        writer.write_eof()
        return (await reader.read()).decode().strip()
    except ConnectionError as exc:
        return type(exc).__name__
    finally:
        writer.close()


async def main() -> None:
    services = [await asyncio.start_server(each, "127.0.0.1", 0) for each in (shout, crash)]
    places = ["{}:{}".format(*each.sockets[0].getsockname()) for each in services]
    ports: list[asyncio.Server] = []

    async def hub(session: muxado.Session) -> None:
        ports.extend([await forward(session, 0, place) for place in places])
        await session.serve(connect)

    async with (
        muxado.serve(hub, "127.0.0.1", 0) as server,
        muxado.connect(*server.addresses[0]) as session,
    ):
        serving = asyncio.create_task(session.serve(connect))
        here = [await forward(session, 0, place) for place in [*places, "127.0.0.1:1"]]
        print("this way:", [await use(port) for port in here])
        print("and back:", [await use(port) for port in ports])
        await session.shutdown()
        await serving
    for listening in [*services, *here, *ports]:
        listening.close()


if __name__ == "__main__":
    asyncio.run(main())
