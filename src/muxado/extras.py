"""Adds the name of the extra to install to the error for a missing library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["needs"]


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Wrap the import of an extra's library; if it is missing, say how to install it.

    ::

        with needs("httpx"):
            import httpx

    Args:
        extra: the extra's name.

    Raises:
        ImportError: the library is missing, or not the version that is needed.
    """
    try:
        yield
    except ImportError as exc:
        cause = exc.__cause__ if isinstance(exc.__cause__, ImportError) else exc
        message = f"this needs: pip install 'muxado[{extra}]' ({cause})"
        raise ImportError(message, name=exc.name, path=exc.path) from cause
