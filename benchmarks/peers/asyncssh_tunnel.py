"""A reverse tunnel of asyncssh: `server FOLDER PORT`, and `client FOLDER PORT PUBLIC SERVICE`.

The folder has the keys of both, as `ssh-keygen` makes them: host and user.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import asyncssh
import uvloop

HOST = "127.0.0.1"


class Server(asyncssh.SSHServer):
    """Lets the user listen."""

    def server_requested(self, listen_host: str, listen_port: int) -> bool:
        return True


async def serve(folder: Path, port: int) -> None:
    """Be the server until the process is ended."""
    keys = {
        "server_host_keys": [str(folder / "host")],
        "authorized_client_keys": str(folder / "user.pub"),
    }
    async with asyncssh.listen(HOST, port, server_factory=Server, **keys):
        print("ready", flush=True)
        await asyncio.Future()


async def expose(folder: Path, port: int, public: int, service: int) -> None:
    """Have the server listen until the process is ended."""
    known = folder / "known_hosts"
    known.write_text(f"[{HOST}]:{port} {(folder / 'host.pub').read_text()}")
    async with asyncssh.connect(
        HOST,
        port,
        username="bench",
        known_hosts=str(known),
        client_keys=[str(folder / "user")],
        config=None,
    ) as session:
        await session.forward_remote_port(HOST, public, HOST, service)
        print("ready", flush=True)
        await session.wait_closed()


if __name__ == "__main__":
    _, role, where, *ports = sys.argv
    work = {"server": serve, "client": expose}[role]
    uvloop.run(work(Path(where), *map(int, ports)))
