"""Which build is running: the pure Python files, or the same files compiled."""

from __future__ import annotations

from pathlib import Path

from .core import session

COMPILED = Path(session.__file__ or "").suffix in (".so", ".pyd")
"""True if the core is compiled."""
