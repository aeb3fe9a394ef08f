"""`muxado server`, and the commands that rule it: invite, revoke, kick and status."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import sys
from ipaddress import ip_address
from pathlib import Path

import click

from ..errors import UsageError
from ..extras import needs
from ..tunnel import DEFAULT_RULES, Invitation, Server, ServerState
from ..tunnel.files import write_file
from ..tunnel.invitations import DEFAULT_PORT, format_place, parse_place
from ..tunnel.operating import ask, nodes, operated
from .loop import run_in_best_loop

with needs("tunnel"):
    from platformdirs import user_data_path

__all__ = ["invite", "kick", "revoke", "run", "status"]

PLACE = "public"  # the file with where clients reach the server
FIRST = "client-1"  # the name in the first invitation


def run(listen: str, public: str | None, grace: float, state: Path | None) -> int:
    """Run the server; return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("muxado.session").setLevel(logging.WARNING)
    host, port = parse_place(listen)
    return run_in_best_loop(_run(host, port, public, grace, _state(state)))


async def _run(host: str, port: int, public: str | None, grace: float, state: ServerState) -> int:
    ends: asyncio.Queue[None] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    if sys.platform != "win32":
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ends.put_nowait, None)
    async with Server(state, host, port) as server:
        place = (public or _own_address(host), server.port)
        write_file(state.folder / PLACE, format_place(place).encode())
        async with operated(server, host):
            click.echo(f"listening on {format_place((host, server.port))}")
            if public is None and not _is_public(place[0]):
                click.echo(f"reached as {place[0]}, a private address: --public HOST says another")
            if state.is_new():
                _first_invitation(state, place)
            await ends.get()
            click.echo(f"ending; connections have {grace:g} s")
            draining = asyncio.create_task(server.drain(grace))
            again = asyncio.create_task(ends.get())
            await asyncio.wait([draining, again], return_when=asyncio.FIRST_COMPLETED)
            for task in (draining, again):
                task.cancel()
            await asyncio.wait([draining, again])
    return 0


def _first_invitation(state: ServerState, place: tuple[str, int]) -> None:
    invitation = Invitation(state.invite(FIRST), (place,), (state.pin,))
    if sys.stdout.isatty():
        click.echo(f"invite:  {invitation}   (one use, 15 minutes)")
        return
    path = state.folder / "invitation"
    write_file(path, f"{invitation}\n".encode())
    click.echo(f"an invitation (one use, 15 minutes) is in {path}")


def invite(name: str, rules: tuple[str, ...], public: str | None, state: Path | None) -> int:
    """Print an invitation; return the exit status."""
    opened = _state(state)
    if public is None:
        try:
            public = (opened.folder / PLACE).read_text()
        except FileNotFoundError:
            raise UsageError(
                "no server has run on this state yet: start it, or say --public HOST:PORT"
            ) from None
    place = parse_place(public, DEFAULT_PORT)
    token = opened.invite(name, rules or DEFAULT_RULES)
    click.echo(str(Invitation(token, (place,), (opened.pin,))))
    return 0


def revoke(client: str, state: Path | None) -> int:
    """Shut a client out; return the exit status."""
    if not _state(state).revoke(client):
        click.echo(f"muxado: no client {client!r} is known here", err=True)
        return 1
    click.echo(f"{client} is shut out")
    return 0


def kick(client: str, state: Path | None) -> int:
    """End the sessions of a client; return the exit status."""
    count = sum(int(ask(path, do="kick", client=client)["kicked"]) for path in _running(state))
    click.echo(f"sessions of {client} ended: {count}")
    return 0 if count else 1


def status(as_json: bool, state: Path | None) -> int:
    """Show what a server does; return the exit status."""
    for path in _running(state):
        found = ask(path, do="status")
        if as_json:
            click.echo(json.dumps(found))
            continue
        click.echo(f"port {found['port']}, {len(found['clients'])} clients")
        for client in found["clients"]:
            click.echo(f"{client['name']} from {client['address']}")
            for each in client["services"]:
                where = "private" if each["private"] else f"port {each['port']}"
                click.echo(f"  {each['service']}  {where}, {each['open']} connections")
            for use in client["uses"]:
                click.echo(f"  uses {use}")
    return 0


def _state(folder: Path | None) -> ServerState:
    return ServerState(folder or user_data_path("muxado", appauthor=False) / "server")


def _running(state: Path | None) -> list[Path]:
    found = nodes(_state(state).folder)
    if not found:
        raise UsageError("no server runs on this state: --state says which")
    return found


def _own_address(host: str) -> str:
    """Return the address that is listened on, or that of the default route, by this host alone."""
    address = ip_address(host) if host.replace(".", "").isdigit() or ":" in host else None
    if address is None or not address.is_unspecified:
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # which sends nothing
        except OSError:
            return "127.0.0.1"
        return str(sock.getsockname()[0])


def _is_public(host: str) -> bool:
    try:
        return ip_address(host).is_global
    except ValueError:
        return True
