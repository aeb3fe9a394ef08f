"""Which build is running: the pure Python files, or the same files compiled."""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from pathlib import Path

# Found and not imported: to tell its version a program need not load it.
_session = PathFinder.find_spec("session", [str(Path(__file__).with_name("core"))])

_place = (_session.origin if _session else None) or ""

COMPILED: bool = _place.endswith(tuple(EXTENSION_SUFFIXES))
"""True if the core is compiled."""
