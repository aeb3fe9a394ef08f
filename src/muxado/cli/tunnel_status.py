"""`muxado status`: what the servers and the clients that run here are doing."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from ..errors import UsageError
from ..extras import needs
from ..tunnel.operating import ask, clients, nodes

with needs("tunnel"):
    from platformdirs import user_data_path

__all__ = ["socket_of", "status"]


def status(as_json: bool, state: Path | None) -> int:
    """Show what runs on a state, by default on both of this user; return the exit status."""
    data = user_data_path("muxado", appauthor=False)
    found = 0
    for path in nodes(state or data / "server"):
        found += _show(path, as_json, _show_server)
    for path in clients(state or data / "client"):
        found += _show(path, as_json, _show_client)
    if not found:
        raise UsageError("no server and no client runs on this state: --state says which")
    return 0


def socket_of(state: Path | None) -> str:
    """Return the socket of the server that runs on a state, or of the client, for `muxado top`.

    Raises:
        UsageError: none runs, or several do.
    """
    data = user_data_path("muxado", appauthor=False)
    found = nodes(state or data / "server") or clients(state or data / "client")
    if not found:
        raise UsageError("no server and no client runs on this state: --state says which")
    if len(found) > 1:
        told = "\n".join(map(str, found))
        raise UsageError(f"several processes run on this state: say which, as PATH:\n{told}")
    return str(found[0])


def _show(path: Path, as_json: bool, show: Any) -> int:
    """Show what a process answers; return 0 if it is gone, as after a kill."""
    try:
        told = ask(path, do="status")
    except (ConnectionRefusedError, FileNotFoundError):
        path.unlink(missing_ok=True)
        return 0
    if as_json:
        click.echo(json.dumps(told))
    else:
        show(told)
    return 1


def _show_server(told: dict[str, Any]) -> None:
    here = {client["name"] for client in told["clients"]}
    many = f"{_count(len(here), 'client')} by {_count(len(told['clients']), 'session')}"
    click.echo(f"port {told['port']}, {many}{_of_fleet(told)}")
    for client in told["clients"]:
        click.echo(f"{client['name']} from {client['address']} since {_clock(client['since'])}")
        for each in client["services"]:
            where = "private" if each["private"] else f"port {each['port']}"
            click.echo(f"  {each['service']}  {where}, {each['open']} connections")
        for use in client["uses"]:
            click.echo(f"  uses {use}")
    for name, rules in told["known"].items():
        away = "" if name in here else "  (not connected here)"
        click.echo(f"rights of {name}: {', '.join(rules) or 'none'}{away}")
    for each in told["invited"]:
        click.echo(f"{each['name']} is invited until {_clock(each['until'])}")


def _count(number: int, what: str) -> str:
    """Return so many of something."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def _clock(seconds: float) -> str:
    """Return a time by this machine's clock."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _of_fleet(told: dict[str, Any]) -> str:
    """Return what else is to be said of a server's state."""
    fleet = told["fleet"]
    said = ", about to end" if told["draining"] else ""
    if fleet["shared"]:
        said += f"; fleet: {fleet['names']} names here, {fleet['peers']} other servers in touch"
    if fleet["trouble"]:
        said += f"; the directory can't be used: {fleet['trouble']}"
    return said


def _show_client(told: dict[str, Any]) -> None:
    connected = told["state"] == "connected"
    why = told["denied"] or told["error"]
    click.echo(f"server {told['server']}: {told['state']}{f', {why}' if why else ''}")
    for each in told["services"]:
        if each["denied"]:
            where = f"denied: {each['denied']}"
        elif not connected or not each["answered"]:
            where = "not there while there is no connection"
        else:
            where = "private" if each["private"] else f"port {each['port']}"
        click.echo(f"  {each['service']}  ->  {each['target']}  {where}")
    for each in told["forwards"]:
        lacks = f"  denied: no right {each['lacks']}" if each["lacks"] else ""
        click.echo(f"  {each['address']}  ->  {each['service']}{lacks}")
    for pin in told["pins"]:
        click.echo(f"  the server's key: {pin}")
