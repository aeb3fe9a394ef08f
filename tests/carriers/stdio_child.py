"""A program that serves on its standard input and output: answers in capitals, and does as told."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import trio

import muxado
import muxado.sync
import muxado.trio


def obey(order: bytes) -> bytes:
    """Return the answer to what a stream has said."""
    if order.startswith(b"exit "):
        os._exit(int(order.split()[1]))
    if order == b"die":
        os.kill(os.getpid(), signal.SIGKILL)
    if order == b"pid":
        return str(os.getpid()).encode()
    if order == b"noise":
        print("printed noise", flush=True)
        subprocess.run(["sh", "-c", "cat; echo noise of a child"], check=True)
    return order.upper()


def on_asyncio() -> None:
    async def answer(stream: muxado.Stream) -> None:
        await stream.write(obey(await stream.read()))

    async def handle(session: muxado.Session) -> None:
        await session.serve(answer)

    asyncio.run(muxado.serve_stdio(handle))


def in_threads() -> None:
    def answer(stream: muxado.sync.Stream) -> None:
        order = b""
        while data := stream.recv(65536):
            order += data
        stream.sendall(obey(order))

    muxado.sync.serve_stdio(lambda session: session.serve(answer))


def on_trio() -> None:
    async def answer(stream: muxado.trio.Stream) -> None:
        order = b""
        while data := await stream.receive_some(65536):
            order += data
        await stream.send_all(obey(order))

    async def handle(session: muxado.trio.Session) -> None:
        await session.serve(answer)

    trio.run(muxado.trio.serve_stdio, handle)


if __name__ == "__main__":
    FRONT_ENDS = {"asyncio": on_asyncio, "sync": in_threads, "trio": on_trio}
    if "linger" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    FRONT_ENDS[sys.argv[1]]()
    while "linger" in sys.argv:
        signal.pause()
