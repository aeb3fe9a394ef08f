"""What sessions over sockets tell of their connection, also once it is gone."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any


class ConnectionInfo:
    """What `get_extra_info` tells of a connection; it is kept when the connection is gone.

    Args:
        sock: its socket, None if it has none.
        secured: the `ssl.SSLSocket`, or an object like it, that does TLS over it; None without.
        lock: is held while `secured` is asked.
        more: what else is known of it, by name.
    """

    def __init__(
        self,
        sock: Any,
        secured: Any = None,
        lock: AbstractContextManager[Any] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        self._known: dict[str, Any] = dict(more or {})
        self._secured = secured
        self._lock = lock or nullcontext()
        if sock is not None:
            self._known["socket"] = sock
            for name, ask in (("peername", sock.getpeername), ("sockname", sock.getsockname)):
                try:
                    self._known[name] = ask()
                except OSError:
                    self._known[name] = None
        if secured is not None:
            self._known |= {"ssl_object": secured, "sslcontext": secured.context}
            self._ask()

    def get(self, name: str, default: Any) -> Any:
        """Return one piece of it."""
        if name not in self._known and self._secured is not None:
            with self._lock:
                self._ask()
        return self._known.get(name, default)

    def _ask(self) -> None:
        secured = self._secured
        try:
            self._known |= {
                "peercert": secured.getpeercert(),
                "cipher": secured.cipher(),
                "compression": secured.compression(),
            }
        except Exception:
            return  # the handshake isn't done yet, or the connection is over
