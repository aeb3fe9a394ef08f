"""What a name in a cluster may be: a DNS label."""

from __future__ import annotations

import re

from ..errors import UsageError

__all__ = ["check_name", "is_name"]

LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def is_name(name: object) -> bool:
    """Return whether a name is a DNS label: a–z, 0–9 and -, at most 63, not - at an end."""
    return isinstance(name, str) and LABEL.fullmatch(name) is not None


def check_name(name: object) -> str:
    """Return a name.

    Raises:
        UsageError: it is no DNS label.
    """
    if not isinstance(name, str) or not is_name(name):
        raise UsageError(
            f"a name must be a DNS label (a-z, 0-9 and -, at most 63), not {name!r:.80}"
        )
    return name
