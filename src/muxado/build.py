"""Which build is running: the pure Python files, or the same files compiled."""

from __future__ import annotations

import sys
from pathlib import Path

from .core import CoreSession

COMPILED = Path(sys.modules[CoreSession.__module__].__file__ or "").suffix in (".so", ".pyd")
"""True if the core is compiled."""
