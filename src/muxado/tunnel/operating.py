"""A Unix socket of a running server or client: for `muxado status`, `muxado kick` and `muxado top`.

A question is a line of JSON, ``{"do": "status"}``, and so is its answer. It answers what
`muxado.serve_admin` does too (``{"ask": "sessions"}``). The folder of the socket is closed to other
users, and so is the socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from .. import admin
from ..errors import UsageError
from .client import Client
from .files import make_folder
from .server import Server

__all__ = ["SOCKET", "ask", "clients", "folder_of", "nodes", "operated", "shown"]

SOCKET = "socket"  # its name in the folder
MOST_QUESTION = 4096  # bytes
TIMEOUT = 10.0  # seconds for an answer
PATIENCE = 60.0  # seconds between two questions

Tell = Callable[[dict[str, Any]], dict[str, object] | None]


@asynccontextmanager
async def operated(server: Server, folder: Path) -> AsyncIterator[Path | None]:
    """Answer questions about a server while the block runs; give the socket's path.

    Args:
        server: the server.
        folder: the part of the state that is this process's own: see `folder_of`.

    Where there are no Unix sockets, or the path is too long for one, it gives None.
    """

    def tell(question: dict[str, Any]) -> dict[str, object] | None:
        if question.get("do") == "status":
            return server.status()
        if question.get("do") == "kick":
            return {"kicked": server.kick(str(question.get("client")))}
        return None

    async with _answering(tell, make_folder(folder) / SOCKET) as path:
        yield path


@asynccontextmanager
async def shown(client: Client, state: Path) -> AsyncIterator[Path | None]:
    """Answer questions about a client while the block runs; give the socket's path.

    Args:
        client: the client.
        state: the folder of its state.

    Where there are no Unix sockets, or the path is too long for one, it gives None.
    """

    def tell(question: dict[str, Any]) -> dict[str, object] | None:
        return client.status() if question.get("do") == "status" else None

    async with _answering(tell, make_folder(state / "running") / f"{os.getpid()}.socket") as path:
        yield path


@asynccontextmanager
async def _answering(tell: Tell, path: Path) -> AsyncIterator[Path | None]:
    """Answer each question on a socket with what a function returns; None if it knows none."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError, TimeoutError):
            while True:
                async with asyncio.timeout(PATIENCE):
                    line = await reader.readline()
                    if not line:
                        break
                    writer.write(json.dumps(_answer(tell, line)).encode() + b"\n")
                    await writer.drain()
        writer.close()

    if not hasattr(socket, "AF_UNIX") or len(os.fsencode(path)) > 100:
        yield None
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # what a process has left that was killed: the place is this one's now
    listening = await asyncio.start_unix_server(answer, path, limit=MOST_QUESTION)
    os.chmod(path, 0o600)
    try:
        yield path
    finally:
        listening.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _answer(tell: Tell, line: bytes) -> dict[str, object]:
    question = json.loads(line)
    if isinstance(question, dict) and "ask" in question:
        return admin.answer(line)
    told = tell(question) if isinstance(question, dict) else None
    return {"error": "unknown question"} if told is None else told


def folder_of(state: Path, host: str, port: int, worker: int = 0) -> Path:
    """Return the part of a state that is one process's own.

    Args:
        state: the state's folder.
        host: the address that the process listens on.
        port: the port.
        worker: which of several processes of this address it is, from 1 on; 0 if it is the one.
    """
    return state / "nodes" / f"{host.replace(':', '_')}-{port}{f'-{worker}' if worker else ''}"


def nodes(folder: Path) -> list[Path]:
    """Return the sockets of the servers that run on a state."""
    return sorted(folder.glob(f"nodes/*/{SOCKET}"))


def clients(folder: Path) -> list[Path]:
    """Return the sockets of the clients that run on a state."""
    return sorted(folder.glob("running/*.socket"))


def ask(path: Path, **question: object) -> dict[str, Any]:
    """Ask a server or a client; return its answer.

    Raises:
        OSError: it does not answer.
        UsageError: it answers what this version does not understand.
    """
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(TIMEOUT)
        sock.connect(os.fspath(path))
        sock.sendall(json.dumps(question).encode() + b"\n")
        with sock.makefile("rb") as answers:
            answer: Any = json.loads(answers.readline() or b"null")
    if not isinstance(answer, dict):
        raise UsageError(f"{path} does not answer")
    return answer
