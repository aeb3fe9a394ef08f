"""The commands of the tunnel's server: server, invite, revoke, kick and status.

What they do is in `tunnel_server.py`, which needs the extra `tunnel`.
"""

from __future__ import annotations

from pathlib import Path

import click

from .options import JSON, STATE, finish

__all__ = ["COMMANDS"]


@click.command()
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default="0.0.0.0:7443",
    show_default=True,
    help="Where clients connect; what they expose is on the same host's ports.",
)
@click.option("--public", metavar="HOST", help="How clients reach this host; for the invitation.")
@click.option(
    "--grace",
    type=click.FloatRange(0.0),
    default=8.0,
    show_default=True,
    help="Seconds that connections have to end after SIGTERM.",
)
@STATE
def server(listen: str, public: str | None, grace: float, state: Path | None) -> None:
    """Run a tunnel's server.

    The first start makes its key, and an invitation for one client: printed on a terminal,
    otherwise in a file that only you can read. Invite others with `muxado invite NAME`.
    SIGTERM lets connections end, a second one doesn't.
    """

    def work() -> int:
        from .tunnel_server import run

        return run(listen, public, grace, state)

    finish(work)


@click.command()
@click.argument("name")
@click.option(
    "--allow",
    "rules",
    multiple=True,
    metavar="RULE",
    help="What the client may do: expose:20000-20999, private:NAME, private:*, reach:NAME,"
    " forward:HOST:PORTS, forward:10.0.0.0/8:PORTS, or the same with socks:. Several may be given.",
)
@click.option("--public", metavar="HOST:PORT", help="How the client reaches the server.")
@STATE
def invite(name: str, rules: tuple[str, ...], public: str | None, state: Path | None) -> None:
    """Print an invitation for a client that is to be called NAME.

    It is for one use within 15 minutes. Without --allow the client may expose on ports 20000 to
    20999, and offer private services. A known client gets a new key, and these rights.
    """

    def work() -> int:
        from .tunnel_server import invite

        return invite(name, rules, public, state)

    finish(work)


@click.command()
@click.argument("client")
@STATE
def revoke(client: str, state: Path | None) -> None:
    """Shut a client out: its key and its invitations are forgotten, its sessions end."""

    def work() -> int:
        from .tunnel_server import revoke

        return revoke(client, state)

    finish(work)


@click.command()
@click.argument("client")
@STATE
def kick(client: str, state: Path | None) -> None:
    """End the sessions of a client, which may come back. To shut it out: `muxado revoke`."""

    def work() -> int:
        from .tunnel_server import kick

        return kick(client, state)

    finish(work)


@click.command()
@JSON
@STATE
def status(as_json: bool, state: Path | None) -> None:
    """Show the clients of the server that runs here, what they expose and what they use."""

    def work() -> int:
        from .tunnel_server import status

        return status(as_json, state)

    finish(work)


COMMANDS: tuple[click.Command, ...] = (server, invite, revoke, kick, status)
