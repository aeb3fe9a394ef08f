"""`muxado expose` and `muxado forward`."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import signal
import ssl
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import click

from ..cluster.errors import Denied
from ..errors import MuxadoError, UsageError
from ..extras import needs
from ..tunnel import Client, ClientState, Invitation, Known, Target
from ..tunnel.invitations import format_place, parse_place
from .loop import run_in_best_loop

with needs("tunnel"):
    from platformdirs import user_data_path

__all__ = ["expose", "forward"]

REFUSED = 3  # the exit status

Start = Callable[[Client], Awaitable[None]]


def expose(
    what: str,
    port: int | None,
    private: bool,
    sources: tuple[str, ...],
    as_json: bool,
    *,
    once: bool,
    to: str | None,
    state: Path | None,
) -> int:
    """Expose a service until a signal comes; return the exit status."""
    name, equals, rest = what.partition("=")
    target = Target.parse(rest if equals else what)
    name = name if equals else _name_of(target)
    known, kept = _find(to, state)

    async def start(client: Client) -> None:
        exposed = await client.expose(name, target, port=port, private=private, sources=sources)
        host = known.invitation.places[0][0]
        if as_json:
            shown = {"service": name, "target": str(target), "host": host, "port": exposed.port}
            click.echo(json.dumps(shown))
        elif private:
            click.echo(f"private {name}  ->  {target}")
        else:
            click.echo(f"tcp {format_place((host, exposed.port))}  ->  {target}")

    return _stay(known, kept, once, start)


def forward(what: str, as_json: bool, *, once: bool, to: str | None, state: Path | None) -> int:
    """Listen until a signal comes; return the exit status."""
    (host, port), service = parse_forward(what)
    known, kept = _find(to, state)

    async def start(client: Client) -> None:
        await client.connected()
        listening = await client.forward(service, host, port)
        address = format_place(listening.address)
        if as_json:
            click.echo(json.dumps({"address": address, "service": service}))
        else:
            click.echo(f"{address}  ->  {service}")

    return _stay(known, kept, once, start)


def parse_forward(text: str) -> tuple[tuple[str, int], str]:
    """Return where to listen, and what it leads to, of ``[HOST:]PORT:(HOST:PORT|NAME)``.

    Raises:
        UsageError: it is none.
    """
    # In brackets a host may have colons.
    parts = re.findall(r"\[[^\]]*\](?=:|$)|[^:\[\]]+(?=:|$)", text)
    if ":".join(parts) != text or not 2 <= len(parts) <= 4:
        raise UsageError(f"it takes PORT:HOST:PORT or PORT:NAME, not {text!r:.80}")
    host = "127.0.0.1" if parts[0].isdigit() else parts.pop(0)
    if len(parts) < 2:
        raise UsageError(f"it takes PORT:HOST:PORT or PORT:NAME, not {text!r:.80}")
    return parse_place(f"{host}:{parts[0]}"), ":".join(parts[1:])


def _name_of(target: Target) -> str:
    """Return a name for a service that was given none."""
    said = re.sub("[^a-z0-9]+", "-", str(target).lower()).strip("-")
    return said[-63:].strip("-")


def _find(to: str | None, folder: Path | None) -> tuple[Known, ClientState]:
    state = ClientState(folder or user_data_path("muxado", appauthor=False) / "client")
    if to == "-":
        if sys.stdin.isatty():
            to = click.prompt("invitation", hide_input=True)
        else:
            to = sys.stdin.readline()
    if to is not None and to.strip().startswith("muxado://"):
        return state.accept(Invitation.parse(to)), state
    return state.find(to), state


def _stay(known: Known, state: ClientState, once: bool, start: Start) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    return run_in_best_loop(_run(known, state, once, start))


async def _run(known: Known, state: ClientState, once: bool, start: Start) -> int:
    work = asyncio.create_task(_work(known, state, once, start))
    if sys.platform != "win32":
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, work.cancel)
    try:
        return await work
    except asyncio.CancelledError:
        return 0


async def _work(known: Known, state: ClientState, once: bool, start: Start) -> int:
    """Stay connected; return the exit status when the server is not to be had, with `once`."""
    async with Client(known, state, once=once) as client:
        try:
            try:
                await start(client)
            except Denied:  # which was logged; what is wrong may be put right at the server
                if once:
                    return REFUSED
            while True:
                await (await client.connected()).wait_closed()
        except (MuxadoError, ssl.SSLCertVerificationError) as exc:
            click.echo(f"muxado: {exc}", err=True)
            return REFUSED
