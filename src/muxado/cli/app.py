"""The commands and their options."""

from __future__ import annotations

import platform
import sys

import click

from .. import __version__
from ..build import COMPILED


def _version() -> str:
    build = "compiled" if COMPILED else "pure Python"
    return f"muxado {__version__} ({build} core, Python {platform.python_version()})"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(message=_version())
def cli() -> None:
    """Many independent streams over one connection.

    Start with `muxado demo`, which shows what that is good for on this machine.
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
