"""A file of TOML that says what each client may do.

::

    [clients.laptop]
    allow = ["expose:20080", "private:db"]
    connections = 200
    services = 4

Who is not in it may do nothing. ``connections`` and ``services`` are limits, on what is there at
once; without them there are none.
"""

from __future__ import annotations

from pathlib import Path

from ..cluster.names import check_name
from ..errors import UsageError
from .rules import LIMITS, Rights, check_rules
from .tables import Table

__all__ = ["read_rights"]


def read_rights(path: Path) -> dict[str, Rights]:
    """Return the rights of each client in a file.

    Raises:
        UsageError: it can't be; the error names the file, and the key or the line.
    """
    table = Table.read(path)
    found = {}
    for name, fields in table.tables("clients"):
        try:
            check_name(name)
        except UsageError as exc:
            raise table.error(f"clients.{name}", exc) from None
        lines = fields.texts("allow")
        limits = {}
        for limit in LIMITS:
            number = fields.number(limit)
            if number is not None and number < 1:
                raise fields.error(limit, f"must be at least 1, not {number}")
            limits[limit] = number or 0
        fields.finish()
        for number, line in enumerate(lines):
            try:
                check_rules(Rights((line,)).rules)
            except UsageError as exc:
                raise fields.error(f"allow[{number}]", exc) from None
        found[name] = Rights(lines, **limits)
    table.finish()
    return found
