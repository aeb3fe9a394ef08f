"""The commands of the tunnel's server: server, invite, rights, revoke, kick and status.

What they do is in `tunnel_server.py`, which needs the extra `tunnel`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import JSON, STATE, finish

__all__ = ["COMMANDS"]


@click.command()
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Where clients connect; what they expose is on the same host's ports.  [0.0.0.0:7443]",
)
@click.option(
    "--public",
    metavar="HOST[:PORT]",
    help="How clients reach this host, for invitations; several servers with commas.",
)
@click.option(
    "--websocket",
    metavar="URL",
    help="Where clients connect by WebSockets too: ws://127.0.0.1:8080 behind a proxy that ends"
    " TLS, or wss://0.0.0.0:443 with this server's own key.",
)
@click.option(
    "--grace",
    type=click.FloatRange(0.0, min_open=True),
    help="Seconds that connections have to end after SIGTERM.  [8]",
)
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file of TOML with these options, without their dashes; the command line holds.",
)
@click.option(
    "--rights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file of TOML with what each client may do, in place of what invitations say, as below;"
    " SIGHUP has it read again.",
)
@click.option(
    "--directory",
    metavar="URL",
    envvar="MUXADO_DIRECTORY",
    help="The engine by which several servers are one fleet: redis://HOST, nats://HOST. With a"
    " password, put it in the file or in MUXADO_DIRECTORY.",
)
@click.option(
    "--advertise", metavar="HOST:PORT", help="Where the other servers of the fleet reach this one."
)
@click.option("--workers", type=click.IntRange(1), help="How many processes; with --directory.")
@click.option(
    "--admin",
    metavar="HOST:PORT",
    help="Where to answer /live, /ready and /metrics; each further worker has the next port.",
)
@click.option(
    "--proxy-protocol",
    multiple=True,
    metavar="NET",
    help="A network of balancers, whose connections begin with a PROXY header.",
)
@click.option(
    "--exposed-proxy-protocol",
    multiple=True,
    metavar="NET",
    help="The same for the ports that clients expose; they take no other connections then.",
)
@STATE
def server(config: Path | None, **said: Any) -> None:
    """Run a tunnel's server.

    The first start makes its key, and an invitation for one client, called client-1: printed on a
    terminal, otherwise in a file that only you can read. It may do what `muxado invite` allows by
    itself. Invite others with `muxado invite NAME`.
    SIGTERM lets connections end, a second one doesn't.

    In the file of --rights a client has a table. Who has none may do nothing. The rules are those
    of `muxado invite --help`; the limits, on what is there at once, may be left out:

    \b
        [clients.laptop]
        allow = ["expose:20080", "private:*", "reach:db"]
        connections = 200
        services = 4

    With --directory several servers are one fleet, with one state, a copy of it, or a shared
    folder: clients are connected to any of them, and reach each other through all.
    """

    def work() -> int:
        from .tunnel_server import run

        return run(config, said)

    finish(work)


@click.command()
@click.argument("name")
@click.option(
    "--allow",
    "rules",
    multiple=True,
    metavar="RULE",
    help="What the client may do. Several may be given.",
)
@click.option(
    "--rights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file of TOML that says it, in the place of --allow: allow = [RULE, ...] under"
    " [clients.NAME], as in `muxado server --help`.",
)
@click.option(
    "--public",
    metavar="HOST:PORT|URL",
    help="How the client reaches the server: several with commas; by WebSockets wss://HOST/PATH.",
)
@click.option(
    "--pin",
    "pinned",
    is_flag=True,
    help="With wss://: the server ends TLS itself, and is known by its key. Otherwise the"
    " certificate must be one of a public authority.",
)
@STATE
def invite(
    name: str,
    rules: tuple[str, ...],
    rights: Path | None,
    public: str | None,
    pinned: bool,
    state: Path | None,
) -> None:
    """Print an invitation for a client.

    The client is to be called NAME. A RULE is one of

    \b
        expose:20000-20999       have the server listen on these ports
        private:NAME, private:*  offer a service of that name, or any, without a port
        reach:NAME               use what another client offers under that name
        forward:HOST:PORTS       reach that beyond the server; or forward:10.0.0.0/8:PORTS
        socks:HOST:PORTS         reach that by SOCKS5; or socks:10.0.0.0/8:PORTS

    PORTS are 80, 8000-8999 or *. Loopback and link-local addresses must be named one by one:
    forward:127.0.0.1:80. Where the server runs with --rights, that file says what the client may
    do, and --allow is refused. `muxado rights` changes it later.

    The invitation is for one use within 15 minutes. Without
    --allow the client may expose on ports 20000 to 20999, and offer private services. A known
    client gets a new key, and these rights: its processes lose their sessions when the invitation
    is used, and those of the state folder that it is used in come back with the new key.
    """

    def work() -> int:
        from .tunnel_server import invite

        return invite(name, rules, rights, public, pinned, state)

    finish(work)


@click.command()
@click.argument("client")
@click.option(
    "--allow",
    "rules",
    multiple=True,
    metavar="RULE",
    help="What it may do from now on, and nothing else. Several may be given.",
)
@click.option(
    "--add", "more", multiple=True, metavar="RULE", help="What it may do besides what it may now."
)
@STATE
def rights(client: str, rules: tuple[str, ...], more: tuple[str, ...], state: Path | None) -> None:
    """Show what a client may do, or change it.

    It prints a rule a line; they are those of `muxado invite --help`. The client keeps its key.
    What is allowed no more is cut within a second, and what a client was denied it gets within
    seconds. Where the server runs with --rights, that file is the place for changes.
    """

    def work() -> int:
        from .tunnel_server import rights

        return rights(client, rules, more, state)

    finish(work)


@click.command()
@click.argument("client")
@STATE
def revoke(client: str, state: Path | None) -> None:
    """Shut a client out.

    Its key and its invitations are forgotten, its sessions end. Its processes stay, without --once,
    and ask again every few seconds; a new invitation, used on their state folder, lets them in.
    """

    def work() -> int:
        from .tunnel_server import revoke

        return revoke(client, state)

    finish(work)


@click.command()
@click.argument("client")
@STATE
def kick(client: str, state: Path | None) -> None:
    """End the sessions of a client, which comes back at once.

    Its connections are cut; its processes dial again. To shut it out: `muxado revoke`.
    """

    def work() -> int:
        from .tunnel_server import kick

        return kick(client, state)

    finish(work)


@click.command()
@JSON
@STATE
def status(as_json: bool, state: Path | None) -> None:
    """Show what the server and the clients that run here are doing.

    Of a server: the sessions of its clients (one for each of their processes), with what they
    expose, and what they use now; what each client may do, and who is invited. Of `expose`,
    `forward`, `socks` and `run`: whether they are connected, what the server denies, and where
    their services are.
    """

    def work() -> int:
        from .tunnel_status import status

        return status(as_json, state)

    finish(work)


COMMANDS: tuple[click.Command, ...] = (server, invite, rights, revoke, kick, status)
