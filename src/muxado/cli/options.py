"""What the commands of the tunnel have in common: options, and how they end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from ..errors import UsageError

__all__ = ["JSON", "STATE", "finish"]

STATE = click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder of keys and rights; by default one in this user's data folder.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print a line of JSON.")


def finish(work: Callable[[], int]) -> None:
    """Do the work of a command, and end with its status."""
    try:
        status = work()
        sys.stdout.flush()
    except (UsageError, ImportError) as exc:
        raise click.UsageError(str(exc)) from None
    except BrokenPipeError:  # who reads this command's output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except OSError as exc:
        click.echo(f"muxado: {exc}", err=True)
        status = 1
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)
