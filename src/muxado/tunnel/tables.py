"""Files of TOML, whose mistakes are named by file and key, or by line."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import UsageError

__all__ = ["Table"]


class Table:
    """A table of a file. Each key is taken once; `finish` names those that no one has taken."""

    def __init__(self, path: Path, values: dict[str, Any], prefix: str = "") -> None:
        """Not for users: `read` makes it."""
        self._path = path
        self._values = dict(values)
        self._prefix = prefix
        self._known: dict[str, None] = {}  # the keys that were asked for

    @classmethod
    def read(cls, path: Path) -> Table:
        """Read a file.

        Raises:
            UsageError: it can't be read; the error names the line for what is no TOML.
        """
        try:
            return cls(path, tomllib.loads(path.read_text("utf-8")))
        except OSError as exc:
            raise UsageError(f"{path} can't be read: {exc.strerror}") from None
        except ValueError as exc:  # what is no UTF-8 too
            raise UsageError(f"{path}: {exc}") from None

    def text(self, key: str) -> str | None:
        """Take a string; None if it is missing.

        Raises:
            UsageError: there is something else.
        """
        found: str | None = self._take(key, str, "a string")
        return found

    def number(self, key: str) -> int | None:
        """Take a whole number; None if it is missing.

        Raises:
            UsageError: there is something else.
        """
        found: int | None = self._take(key, int, "a whole number")
        return found

    def seconds(self, key: str) -> float | None:
        """Take a number of seconds; None if it is missing.

        Raises:
            UsageError: there is something else.
        """
        value = self._values.get(key)
        kind = float if isinstance(value, float) else int
        found: float | None = self._take(key, kind, "a number of seconds")
        return found

    def flag(self, key: str) -> bool:
        """Take a true or false; False if it is missing.

        Raises:
            UsageError: there is something else.
        """
        return bool(self._take(key, bool, "true or false"))

    def texts(self, key: str) -> tuple[str, ...]:
        """Take a list of strings; () if it is missing.

        Raises:
            UsageError: there is something else.
        """
        found = self._take(key, list, "a list of strings") or []
        for number, each in enumerate(found):
            if not isinstance(each, str):
                raise self.error(f"{key}[{number}]", f"must be a string, not {each!r:.60}")
        return tuple(found)

    def tables(self, key: str) -> Iterator[tuple[str, Table]]:
        """Take a table of tables; give their names and themselves.

        Raises:
            UsageError: there is something else.
        """
        for name, each in (self._take(key, dict, "a table") or {}).items():
            if not isinstance(each, dict):
                raise self.error(f"{key}.{name}", f"must be a table, not {each!r:.60}")
            yield name, Table(self._path, each, f"{self._prefix}{key}.{name}.")

    def finish(self) -> None:
        """Check that all keys were taken.

        Raises:
            UsageError: some were not.
        """
        for key in self._values:
            raise self.error(
                key, f"is no key that is known here; those are {', '.join(self._known)}"
            )

    def error(self, key: str, told: object) -> UsageError:
        """Return the error of a key."""
        return UsageError(f"{self._path}: {self._prefix}{key}: {told}")

    def _take(self, key: str, kind: type[Any], what: str) -> Any:
        self._known[key] = None
        value = self._values.pop(key, None)
        if value is None or type(value) is kind:
            return value
        raise self.error(key, f"must be {what}, not {value!r:.60}")
