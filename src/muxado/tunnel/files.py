"""Small files that several processes read and change: whole, or as they were, and for one user."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import UsageError

if sys.platform != "win32":
    import fcntl

__all__ = ["locked", "make_folder", "read_json", "write_file", "write_json"]


def make_folder(path: Path) -> Path:
    """Make a folder that only this user can look into, if it is missing."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def write_file(path: Path, data: bytes) -> None:
    """Write a file of mode 0600: a reader finds all of it, or what was there before."""
    number, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write an object. See `write_file`."""
    write_file(path, json.dumps(value, indent=1, sort_keys=True).encode() + b"\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a file, {} if there is no file.

    Raises:
        UsageError: there is something else in it.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as exc:
        raise UsageError(f"{path} is damaged ({exc}): restore it, or remove it") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path} is damaged: restore it, or remove it")
    return value


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from changing what is in a folder, while the block runs."""
    if sys.platform == "win32":  # its one server changes its state in one process
        yield
        return
    with open(folder / ".lock", "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
