"""The commands and their options."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import click

from .. import __version__
from ..build import COMPILED
from . import tunnel, tunnel_jobs
from .options import STATE, finish


def _version() -> str:
    build = "compiled" if COMPILED else "pure Python"
    return f"muxado {__version__} ({build} core, Python {platform.python_version()})"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(message=_version())
def cli() -> None:
    """Many independent streams over one connection.

    Start with `muxado demo`, which shows what that is good for on this machine.

    A tunnel takes two commands: `muxado server` on a host that both sides reach, which prints an
    invitation, and `muxado expose 3000 --to -` behind the NAT, which asks for it. `muxado forward`,
    `socks` and `stdio` reach the other way, `run` does all that a file says. On the server
    `invite`, `rights`, `status`, `kick` and `revoke` rule who may do what.
    """


@cli.command()
@click.option(
    "--seconds",
    type=click.FloatRange(0.2, 8.0),
    default=4.0,
    show_default=True,
    help="How long each of the demo's three parts lasts.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 8000),
    default=2000,
    show_default=True,
    help="How many request streams are open at once.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65534),
    default=0,
    show_default=True,
    help="The TCP port on loopback, and the one after it; 0 takes any that are free.",
)
def demo(seconds: float, concurrency: int, port: int) -> None:
    """Run a server and a client over TLS on loopback, and measure them.

    Thousands of concurrent request streams, streams that the server opens back to the client,
    one large transfer and a ping, all over one TLS connection; then the same requests over a
    new TCP and TLS connection each. Every byte is checked: the exit status is 1 if one was
    wrong, 2 if the demo could not run.
    """
    from .demo import DemoError, run

    try:
        good = run(seconds, concurrency, port)
    except DemoError as exc:
        click.echo(f"muxado demo: {exc}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0 if good else 1)


@cli.command()
@click.argument("address", metavar="HOST:PORT")
@click.option("--tls", is_flag=True, help="Over TLS, with the system's trusted authorities.")
@click.option(
    "--ca",
    type=click.Path(exists=True, dir_okay=False),
    help="Over TLS, trusting the authorities in this file instead.",
)
@click.option(
    "--cert",
    type=click.Path(exists=True, dir_okay=False),
    help="Over TLS, with the client certificate and key in this file.",
)
@click.option("--server-name", help="The name that the server's certificate must have.")
@click.option(
    "--pin",
    "pins",
    multiple=True,
    metavar="sha256-...",
    help="Over TLS, where the server is known by its key, as `muxado server` is: the end of an"
    " invitation, behind #, and `muxado status` beside a client. Several may be given.",
)
@click.option(
    "--count", type=click.IntRange(1), default=1, show_default=True, help="How many pings to send."
)
@click.option(
    "--interval",
    type=click.FloatRange(0.0),
    default=1.0,
    show_default=True,
    help="Seconds between two of them.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.0, min_open=True),
    default=5.0,
    show_default=True,
    help="Seconds for the connection, and for each answer.",
)
def ping(
    address: str,
    tls: bool,
    ca: str | None,
    cert: str | None,
    server_name: str | None,
    pins: tuple[str, ...],
    count: int,
    interval: float,
    timeout: float,
) -> None:
    """Say whether a muxado peer is at HOST:PORT, and its round trip.

    If something else is there, say what it is, as far as it shows. The exit status is 0 if a
    muxado peer answered, 1 if something else is there, 2 if there is no connection.
    """
    from ..errors import UsageError
    from .ping import Target, parse_address, pinned_context, run, tls_context

    try:
        host, port = parse_address(address)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="HOST:PORT") from None
    if pins and (ca or cert or server_name):
        raise click.UsageError("--pin stands in the place of --ca, --cert and --server-name")
    try:
        context = None
        if pins:
            context = pinned_context(pins)
        elif tls or ca or cert:
            context = tls_context(ca, cert)
    except (UsageError, ImportError) as exc:
        raise click.UsageError(str(exc)) from None
    except OSError as exc:  # ssl.SSLError too
        raise click.UsageError(f"a file is of no use for TLS: {exc}") from None
    target = Target(host, port, context, server_name, timeout)
    try:
        status = run(target, count, interval, click.echo)
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


@cli.command()
@click.argument("path", metavar="[PATH]", required=False, type=click.Path())
@click.option(
    "--interval",
    type=click.FloatRange(0.1),
    default=2.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Look twice, print, and end, as without a terminal.")
@click.option("--session", type=int, help="Whose streams to show; the one with most by default.")
@click.option("--most", type=click.IntRange(0, 1000), help="How many streams; default: what fits.")
@click.option(
    "--sort",
    type=click.Choice(["bytes", "age", "unread", "queued"]),
    default="bytes",
    show_default=True,
    help="Which streams to show: those with most of it.",
)
@STATE
def top(
    path: str | None,
    interval: float,
    once: bool,
    session: int | None,
    most: int | None,
    sort: str,
    state: Path | None,
) -> None:
    """Show the sessions and streams of a running process, live.

    Without PATH it is the `muxado server` that runs on the state, or the client (`muxado expose`
    and the like). Of a program of your own, PATH is where it has called muxado.serve_admin(PATH).
    Ctrl-C ends it.
    """

    def work() -> int:
        from .top import run

        where = path
        if where is None:
            from .tunnel_status import socket_of

            where = socket_of(state)
        return run(where, interval=interval, once=once, number=session, most=most, sort=sort)

    finish(work)


for _command in (*tunnel.COMMANDS, *tunnel_jobs.COMMANDS):
    cli.add_command(_command)
