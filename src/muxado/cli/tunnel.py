"""The commands of the tunnel: server, invite, revoke, kick, status, expose and forward.

What they do is in `tunnel_server.py` and `tunnel_client.py`, which need the extra `tunnel`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..errors import UsageError

__all__ = ["COMMANDS"]

STATE = click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of keys and rights; by default one in this user's data folder.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print a line of JSON.")
TO = click.option(
    "--to",
    metavar="URI|NAME|-",
    envvar="MUXADO_SERVER",
    help="The server: an invitation, the name of a known one, or - to be asked for the invitation,"
    " which keeps it out of the process list. Not needed where one server is known.",
)
ONCE = click.option(
    "--once", is_flag=True, help="End with status 3 if the server refuses, or is not who it was."
)


def _checked(work: Callable[[], int]) -> None:
    """Do the work of a command, and end with its status."""
    try:
        status = work()
    except (UsageError, ImportError) as exc:
        raise click.UsageError(str(exc)) from None
    except OSError as exc:
        click.echo(f"muxado: {exc}", err=True)
        status = 1
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


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

    _checked(work)


@click.command()
@click.argument("name")
@click.option(
    "--allow",
    "rules",
    multiple=True,
    metavar="RULE",
    help="What the client may do: expose:20000-20999, private:NAME, private:*, reach:NAME,"
    " forward:HOST:PORTS or forward:10.0.0.0/8:PORTS. Several may be given.",
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

    _checked(work)


@click.command()
@click.argument("client")
@STATE
def revoke(client: str, state: Path | None) -> None:
    """Shut a client out: its key and its invitations are forgotten, its sessions end."""

    def work() -> int:
        from .tunnel_server import revoke

        return revoke(client, state)

    _checked(work)


@click.command()
@click.argument("client")
@STATE
def kick(client: str, state: Path | None) -> None:
    """End the sessions of a client, which may come back. To shut it out: `muxado revoke`."""

    def work() -> int:
        from .tunnel_server import kick

        return kick(client, state)

    _checked(work)


@click.command()
@JSON
@STATE
def status(as_json: bool, state: Path | None) -> None:
    """Show the clients of the server that runs here, what they expose and what they use."""

    def work() -> int:
        from .tunnel_server import status

        return status(as_json, state)

    _checked(work)


@click.command()
@click.argument("what", metavar="[NAME=]TARGET")
@click.option("--port", type=click.IntRange(1, 65535), help="The server's port; else a free one.")
@click.option("--private", is_flag=True, help="For other clients' `muxado forward`; no port.")
@click.option(
    "--from",
    "sources",
    multiple=True,
    metavar="NET",
    help="Who may connect to the port, as 10.0.0.0/8. Several may be given; else everybody may.",
)
@JSON
@ONCE
@TO
@STATE
def expose(
    what: str,
    port: int | None,
    private: bool,
    sources: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Let a service of this machine be reached through the server.

    TARGET is a port of this machine, HOST:PORT, or unix:/PATH. The first time, give the invitation:

    \b
        muxado expose 3000 --to -
        muxado expose web=localhost:3000 --port 20080
        muxado expose db=localhost:5432 --private
    """

    def work() -> int:
        from .tunnel_client import expose

        return expose(what, port, private, sources, as_json, **options)

    _checked(work)


@click.command()
@click.argument("what", metavar="[HOST:]PORT:(HOST:PORT|NAME)")
@JSON
@ONCE
@TO
@STATE
def forward(what: str, as_json: bool, **options: Any) -> None:
    """Listen on a port of this machine that leads through the server.

    It leads to a host and port beyond the server, or to what another client offers privately:

    \b
        muxado forward 5432:db.internal:5432
        muxado forward 5432:db
    """

    def work() -> int:
        from .tunnel_client import forward

        return forward(what, as_json, **options)

    _checked(work)


COMMANDS: tuple[click.Command, ...] = (server, invite, revoke, kick, status, expose, forward)
