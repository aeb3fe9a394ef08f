"""requests over a session: an adapter whose connections are streams."""

from __future__ import annotations

from typing import Any

from ..extras import needs
from ..sync import Session

with needs("requests"):
    import requests.adapters

    from .urllib3 import pool_classes

__all__ = ["Adapter"]


class Adapter(requests.adapters.HTTPAdapter):
    """Opens streams for a `requests.Session`; mount it where they should be used.

    ::

        http = requests.Session()
        http.mount("http://agent/", Adapter(session))

    `https` is TLS inside the stream. Proxies are not asked.

    Args:
        session: the session.
        kwds: what `requests.adapters.HTTPAdapter` takes.
    """

    def __init__(self, session: Session, **kwds: Any) -> None:
        self._session = session
        super().__init__(**kwds)

    def init_poolmanager(self, *args: Any, **kwds: Any) -> None:
        """Make the pools' connections streams."""
        super().init_poolmanager(*args, **kwds)
        self.poolmanager.pool_classes_by_scheme = pool_classes(self._session)

    def send(self, *args: Any, **kwds: Any) -> requests.Response:
        """Send a request, past any proxy that the environment names."""
        kwds["proxies"] = None
        return super().send(*args, **kwds)
