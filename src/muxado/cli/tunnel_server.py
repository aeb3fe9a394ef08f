"""`muxado server`, and the commands that rule it: invite, rights, revoke and kick."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import sys
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import click

from ..errors import UsageError
from ..extras import needs
from ..tunnel import DEFAULT_RULES, Invitation, Rights, Server, ServerState
from ..tunnel.files import make_folder, write_file
from ..tunnel.health import watched
from ..tunnel.invitations import DEFAULT_PORT, Place, format_place, parse_place
from ..tunnel.notifying import notify
from ..tunnel.operating import SOCKET, ask, folder_of, nodes, operated
from ..tunnel.rights_file import read_rights
from ..tunnel.rules import LIMITS, check_rules
from ..tunnel.settings import Settings, directory_at, read_settings
from .loop import run_in_best_loop

with needs("tunnel"):
    from platformdirs import user_data_path

__all__ = ["Worker", "invite", "kick", "revoke", "rights", "run", "serve"]

logger: logging.Logger = logging.getLogger("muxado.tunnel")

PLACE = "public"  # the file with where clients reach a server
FIRST = "client-1"  # the name in the first invitation


@dataclass(frozen=True)
class Worker:
    """One of several processes of a server.

    Attributes:
        number: which, from 1 on.
        sock: the listening socket that all of them have.
    """

    number: int
    sock: socket.socket


def run(config: Path | None, said: dict[str, Any]) -> int:
    """Run the server; return the exit status.

    Args:
        config: the file of settings.
        said: those of the command line, None for what it does not say.
    """
    settings = read_settings(config, said)
    log()
    if settings.workers > 1:
        from .workers import supervise

        return run_in_best_loop(supervise(settings))
    return serve(settings)


def log() -> None:
    """Log to standard error, what happens to clients and not each session."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("muxado.session").setLevel(logging.WARNING)


def serve(settings: Settings, worker: Worker | None = None) -> int:
    """Be a server in this process; return the exit status."""
    return run_in_best_loop(_serve(settings, worker))


async def _serve(settings: Settings, worker: Worker | None) -> int:
    ends: asyncio.Queue[None] = asyncio.Queue()
    state = _state(settings.state)
    host, port = parse_place(settings.listen)
    number = 0 if worker is None else worker.number
    folder = folder_of(state.folder, host, port, number)
    server = Server(
        state,
        host,
        port,
        sock=None if worker is None else worker.sock,
        directory=None if settings.directory is None else directory_at(settings.directory),
        peers=_peers(settings, host),
        advertise=settings.advertise or "",
        folder=make_folder(folder),
        rights=settings.rights,
        proxy_protocol=settings.proxy_protocol or None,
        exposed_proxy_protocol=settings.exposed_proxy_protocol or None,
        websocket=settings.websocket,
    )
    _listen_to_signals(server, ends, worker)
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(server)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or worker is not None:
                raise
            raise OSError(_who_listens(host, port, folder)) from None
        await stack.enter_async_context(operated(server, folder))
        if settings.admin is not None:
            admin, first = parse_place(settings.admin)
            place = admin, first + max(0, number - 1)
            place = await stack.enter_async_context(watched(server, place))
            click.echo(f"http://{format_place(place)} has /live, /ready and /metrics")
        reached = settings.public_places(port) or [(_own_address(host), port)]
        write_file(folder / PLACE, ",".join(map(format_place, reached)).encode())
        if number <= 1:
            click.echo(f"listening on {format_place((host, port))}")
            if settings.public is None and not _is_public(reached[0][0]):
                told = f"reached as {reached[0][0]}, a private address: --public HOST says another"
                click.echo(told)
            if state.is_new():
                _first_invitation(state, tuple(reached))
        notify("READY=1")
        await ends.get()
        notify("STOPPING=1")
        click.echo(f"ending; connections have {settings.grace:g} s")
        draining = asyncio.create_task(server.drain(settings.grace))
        again = asyncio.create_task(ends.get())
        await asyncio.wait([draining, again], return_when=asyncio.FIRST_COMPLETED)
        for task in (draining, again):
            task.cancel()
        await asyncio.wait([draining, again])
    return 0


def _listen_to_signals(server: Server, ends: asyncio.Queue[None], worker: Worker | None) -> None:
    """Take SIGTERM and SIGINT as the wish to end, and SIGHUP as that to read rights again."""
    loop = asyncio.get_running_loop()

    def reload() -> None:
        try:
            server.reload()
        except UsageError as exc:
            logger.error("rights are as they were: %s", exc)
        else:
            logger.info("rights were read again; other settings hold until the next start")

    if sys.platform != "win32":
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ends.put_nowait, None)
        loop.add_signal_handler(signal.SIGHUP, reload)
    if worker is not None:
        # The other end of standard input is closed with the process that has started this one.
        loop.add_reader(sys.stdin.fileno(), _end_with_input, loop, ends)


def _end_with_input(loop: asyncio.AbstractEventLoop, ends: asyncio.Queue[None]) -> None:
    loop.remove_reader(sys.stdin.fileno())
    ends.put_nowait(None)


def _who_listens(host: str, port: int, folder: Path) -> str:
    """Return what is to be done about a port that is in use."""
    place = f"{format_place((host, port))} is in use"
    try:
        ask(folder / SOCKET, do="status")
    except (OSError, UsageError):
        return f"{place} by another program: --listen HOST:PORT says another place"
    return (
        f"{place} by a server that runs on this state already: `muxado status` shows it; to run"
        " another one, say --listen HOST:PORT and --state"
    )


def _peers(settings: Settings, host: str) -> Place:
    """Return where to listen for the other servers."""
    if settings.peers is not None:
        return parse_place(settings.peers)
    port = 0
    if settings.advertise is not None:
        advertised, port = parse_place(settings.advertise)
        if settings.workers > 1:
            raise UsageError("advertise: workers have an address each, which they say themselves")
        # Behind an address translation the advertised address is none of this host's.
        return ("0.0.0.0" if not _is_loopback(advertised) else advertised), port  # noqa: S104
    return ("127.0.0.1" if _is_loopback(host) else _own_address(host)), port


def _first_invitation(state: ServerState, places: tuple[Place, ...]) -> None:
    invitation = Invitation(state.invite(FIRST), places, (state.pin,))
    if sys.stdout.isatty():
        click.echo(f"invite:  {invitation}   (for {FIRST}, one use, 15 minutes)")
        return
    path = state.folder / "invitation"
    write_file(path, f"{invitation}\n".encode())
    click.echo(f"an invitation (for {FIRST}, one use, 15 minutes) is in {path}")


def invite(
    name: str,
    rules: tuple[str, ...],
    rights: Path | None,
    public: str | None,
    pinned: bool,
    state: Path | None,
) -> int:
    """Print an invitation; return the exit status."""
    opened = _state(state)
    if public is None:
        reached = Invitation("", tuple(_places(opened.folder)))
    else:
        reached = Invitation.parse(public if "://" in public else f"muxado://{public}")
    pins = (opened.pin,) if pinned or not reached.path else ()
    wanted = Rights(rules or DEFAULT_RULES)
    check_rules(wanted.rules)
    if rights is not None:
        if rules:
            raise UsageError("give either --allow or --rights")
        found = read_rights(rights)
        if name not in found:
            raise UsageError(f"{rights}: there is no [clients.{name}]")
        wanted = found[name]
    held = _rights_file(opened.folder)
    if held is not None:
        _check_file_says(held, name, bool(rules))
    token = opened.invite(name, wanted)
    click.echo(str(replace(reached, token=token, pins=pins)))
    return 0


def rights(client: str, rules: tuple[str, ...], more: tuple[str, ...], state: Path | None) -> int:
    """Show what a client may do, or change it; return the exit status."""
    opened = _state(state)
    known = opened.clients()
    held = _rights_file(opened.folder)
    if client not in known:
        click.echo(f"muxado: no client {client!r} is known here", err=True)
        return 1
    found = known[client][1] if held is None else read_rights(held).get(client, Rights(()))
    if rules or more:
        if held is not None:
            _check_file_says(held, client, True)
        limits = {name: getattr(found, name) for name in LIMITS}
        found = Rights([*(rules or found.lines()), *more], **limits)
        check_rules(found.rules)
        opened.set_rules(client, found)
    for line in found.lines():
        click.echo(line)
    return 0


def _rights_file(folder: Path) -> Path | None:
    """Return the file of rights of the server that runs on a state, if it has one."""
    for path in nodes(folder):
        with suppress(OSError, UsageError):
            found = ask(path, do="status").get("rights_file")
            if found:
                return Path(found)
    return None


def _check_file_says(held: Path, name: str, ruled: bool) -> None:
    """Say what a server's file of rights means for a client.

    Raises:
        UsageError: the command line says other rights.
    """
    what = f"put them under [clients.{name}] there, as allow = [...], and send the server SIGHUP"
    if ruled:
        raise UsageError(f"the server that runs here takes rights from {held}: {what}")
    if name not in read_rights(held):
        click.echo(f"muxado: {name} has no rights in {held} yet: {what}", err=True)


def _places(folder: Path) -> list[Place]:
    """Return where clients reach the servers of a state: those that run, or that have run."""
    known = [each.parent / PLACE for each in nodes(folder)] or sorted(
        folder.glob(f"nodes/*/{PLACE}")
    )
    found: dict[Place, None] = {}
    for path in known:
        if path.exists():
            for each in path.read_text().split(","):
                found[parse_place(each, DEFAULT_PORT)] = None
    if not found:
        raise UsageError("no server has run on this state yet: start it, or say --public HOST:PORT")
    return list(found)


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


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_public(host: str) -> bool:
    try:
        return ip_address(host).is_global
    except ValueError:
        return True
