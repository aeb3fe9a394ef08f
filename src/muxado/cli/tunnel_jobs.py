"""The commands of the tunnel's clients: expose, forward, socks, stdio and run.

What they do is in `tunnel_client.py`, which needs the extra `tunnel`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import JSON, STATE, finish

__all__ = ["COMMANDS"]

TO = click.option(
    "--to",
    metavar="URI|NAME|-",
    envvar="MUXADO_SERVER",
    help="The server: an invitation, the name of a known one, or - to be asked for the invitation,"
    " which keeps it out of the process list. Not needed where one server is known.",
)
ONCE = click.option(
    "--once",
    is_flag=True,
    help="End with status 3 if the server refuses, or is not who it was, and with 1 if it is out of"
    " reach for longer than --timeout. Without it the command goes on trying, and says so.",
)
TIMEOUT = click.option(
    "--timeout",
    type=click.FloatRange(0.0, min_open=True),
    default=15.0,
    show_default=True,
    help="With --once: seconds for which the server may be out of reach.",
)


@click.command()
@click.argument("what", metavar="[NAME=]TARGET")
@click.argument("more", nargs=-1, metavar="")
@click.option("--port", type=click.IntRange(1, 65535), help="The server's port; else a free one.")
@click.option("--private", is_flag=True, help="For other clients' `muxado forward`; no port.")
@click.option(
    "--from",
    "sources",
    multiple=True,
    metavar="NET",
    help="Who may connect to the port, as 10.0.0.0/8. Several may be given; by default any may.",
)
@click.option(
    "--proxy-protocol",
    is_flag=True,
    help="Tell the target the caller's address by the PROXY protocol, version 2.",
)
@click.option(
    "--allow-target",
    "allowed",
    multiple=True,
    metavar="HOST|NET:PORTS",
    help="For the target socks: what may be reached, as 10.0.0.0/8:* or db:5432. Several may be"
    " given. This machine itself must be named: 127.0.0.1:PORTS.",
)
@JSON
@ONCE
@TIMEOUT
@TO
@STATE
def expose(
    what: str,
    more: tuple[str, ...],
    port: int | None,
    private: bool,
    sources: tuple[str, ...],
    proxy_protocol: bool,
    allowed: tuple[str, ...],
    **options: Any,
) -> None:
    """Let a local service be reached through the server.

    TARGET is a port of this machine, HOST:PORT, unix:/PATH, or socks, which lets callers choose
    among what --allow-target names. The first time, give the invitation:

    \b
        muxado expose 3000 --to -
        muxado expose web=localhost:3000 --port 20080
        muxado expose db=localhost:5432 --private
        muxado expose lan=socks --private --allow-target 10.0.0.0/8:*

    It prints where the service is, stays connected, and ends by Ctrl-C or SIGTERM. Several
    services at once: `muxado run`.

    Where two processes of one client offer the same NAME, at the same port or privately, the newest
    has it: connections through the older one are cut, and it says so, waits, and takes the service
    back when the newer one has gone.
    """

    if more:
        raise click.UsageError("one service at a time: `muxado run` takes a file with several")

    def work() -> int:
        from .tunnel_client import expose

        shown = {"port": port, "private": private, "sources": sources}
        return expose(what, allowed, shown | {"proxy_protocol": proxy_protocol}, **options)

    finish(work)


@click.command()
@click.argument("what", metavar="[HOST:]PORT:(HOST:PORT|NAME)")
@JSON
@ONCE
@TIMEOUT
@TO
@STATE
def forward(what: str, **options: Any) -> None:
    """Listen on a local port that leads through the server.

    It leads to a host and port beyond the server, or to what another client offers privately:

    \b
        muxado forward 5432:db.internal:5432
        muxado forward 5432:db
        muxado forward 0.0.0.0:5432:db

    The server must allow it: `muxado invite NAME --allow forward:db.internal:5432`, or
    `--allow reach:db`. Without a HOST only this machine can use the port.
    """

    def work() -> int:
        from .tunnel_client import forward

        return forward(what, **options)

    finish(work)


@click.command()
@click.argument("listen", metavar="[HOST:]PORT")
@JSON
@ONCE
@TIMEOUT
@TO
@STATE
def socks(listen: str, **options: Any) -> None:
    """Listen for SOCKS5: a way into networks.

    It leads to places beyond the server.

    \b
        muxado socks 1080
        curl --proxy socks5h://127.0.0.1:1080 http://wiki.internal/

    Names are looked up by the server (programs call that socks5h). It must allow what is reached:
    `muxado invite NAME --allow socks:10.0.0.0/8:*`. For a network beyond another client, have
    that one `muxado expose lan=socks --private`, and use `muxado forward 1080:lan` here.
    """

    def work() -> int:
        from .tunnel_client import socks

        return socks(listen, **options)

    finish(work)


@click.command()
@click.argument("place", metavar="HOST:PORT|NAME")
@click.option(
    "--timeout",
    type=click.FloatRange(0.0, min_open=True),
    default=15.0,
    show_default=True,
    help="Seconds for which the server may be out of reach.",
)
@click.option(
    "--to",
    metavar="URI|NAME",
    envvar="MUXADO_SERVER",
    help="The server: an invitation, or the name of a known one. Not needed where one server is"
    " known. An invitation is better given to another command first, by --to -.",
)
@STATE
def stdio(place: str, **options: Any) -> None:
    """Connect standard input and output to a place.

    \b
        ssh -o ProxyCommand='muxado stdio %h:%p' user@box.internal
        ssh -o ProxyCommand='muxado stdio %h' user@box
        echo QUIT | muxado stdio mail.internal:25

    HOST:PORT is beyond the server. NAME alone, as in the second line, is what another client offers
    by `muxado expose NAME=localhost:22 --private`. It is a `nc` for the far end, and OpenSSH's
    ProxyCommand.

    The exit status is 0 when both sides have said all, 1 if the place could not be reached, this
    client has no right to it, or it was cut off, 3 if the server does not take this client at all,
    or is not who it was.
    """

    def work() -> int:
        from .tunnel_client import stdio

        return stdio(place, **options)

    finish(work)


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@JSON
@ONCE
@TIMEOUT
@TO
@STATE
def run(file: Path, **options: Any) -> None:
    """Do all that a file says: expose, forward, socks.

    It is a file of TOML:

    \b
        server = "tunnel.example:7443"        # as --to; may be left out
        forward = ["5432:db.internal:5432"]   # as `muxado forward`
        socks = ["1080"]                      # as `muxado socks`
    \b
        [expose.web]                          # as `muxado expose`
        target = "localhost:3000"
        port = 20080                          # or private = true
        from = ["10.0.0.0/8"]
        proxy-protocol = true
    \b
        [expose.lan]
        target = "socks"
        private = true
        allow-target = ["10.0.0.0/8:*"]

    SIGHUP reads the file again, and says so; connections of what stays the same go on. Services are
    offered once all ports are listened on; one that another process offers already is taken from
    that, as `muxado expose --help` says.
    """

    def work() -> int:
        from .tunnel_client import run

        return run(file, **options)

    finish(work)


COMMANDS: tuple[click.Command, ...] = (expose, forward, socks, stdio, run)
