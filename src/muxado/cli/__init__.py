"""The `muxado` command. It needs the `cli` extra, or for the tunnel `tunnel`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the `muxado` command, or say what is missing to run it."""
    try:
        from .app import cli
    except ModuleNotFoundError as exc:
        if exc.name in ("click", "rich"):
            sys.exit(f"muxado: the command needs {exc.name}: pip install 'muxado[cli]'")
        raise
    cli()
