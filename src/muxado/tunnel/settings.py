"""The settings of `muxado server`: from its command line, and from a file of TOML.

The keys of the file are the options' names; what the command line says holds.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from ..cluster import Directory
from ..errors import UsageError
from .invitations import Place, parse_place
from .tables import Table
from .web import parse_web

__all__ = ["Settings", "directory_at", "read_settings"]

NETWORKS = ("proxy_protocol", "exposed_proxy_protocol")  # the settings that are lists


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a server is to do.

    Attributes:
        listen: where clients connect, "HOST:PORT".
        public: how clients reach it, "HOST" or "HOST:PORT", several with commas; None: as it seems.
        state: the folder of keys and rights; None for the usual one.
        grace: seconds that connections have to end after SIGTERM.
        directory: the URL of the engine that servers share; None for a server alone.
        peers: where it listens for other servers, "HOST:PORT"; None: any free port.
        advertise: "HOST:PORT" at which other servers reach it; None: where it listens for them.
        workers: how many processes it has.
        admin: where /live, /ready and /metrics are, "HOST:PORT"; None: nowhere. Each further
            worker has the next port.
        rights: a file of rights.
        proxy_protocol: networks of balancers whose connections begin with a PROXY header.
        exposed_proxy_protocol: the same for the ports that clients expose.
        websocket: where clients connect by WebSockets too, a URL; None: nowhere.
    """

    listen: str = "0.0.0.0:7443"
    public: str | None = None
    state: Path | None = None
    grace: float = 8.0
    directory: str | None = None
    peers: str | None = None
    advertise: str | None = None
    workers: int = 1
    admin: str | None = None
    rights: Path | None = None
    proxy_protocol: tuple[str, ...] = ()
    exposed_proxy_protocol: tuple[str, ...] = ()
    websocket: str | None = None

    def check(self) -> None:
        """Check what can be checked without anything being there.

        Raises:
            UsageError: something can't be; the message begins with its name.
        """
        for name in ("listen", "peers", "advertise", "admin"):
            text = getattr(self, name)
            if text is not None:
                with _naming(name):
                    parse_place(text)
        self.public_places(1)
        if self.websocket is not None:
            with _naming("websocket"):
                parse_web(self.websocket)
        if self.workers < 1 or self.grace < 0:
            raise UsageError("workers: there must be at least 1, and grace: 0 s")
        if self.workers > 1 and self.directory is None:
            raise UsageError(
                "workers: several processes need a directory that all of them can ask:"
                " --directory redis://HOST or nats://HOST"
            )
        if self.directory is not None:
            with _naming("directory"):
                directory_at(self.directory)
        for name in NETWORKS:
            for network in getattr(self, name):
                with _naming(name.replace("_", "-")):
                    _check_network(network)

    def public_places(self, port: int) -> list[Place]:
        """Return how clients reach the server, as far as it is said.

        Args:
            port: the port where none is said.

        Raises:
            UsageError: it can't be.
        """
        with _naming("public"):
            return [parse_place(each, port) for each in (self.public or "").split(",") if each]


class _naming:
    """Has an error in the block begin with the name of a setting."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        if isinstance(exc, UsageError):
            raise UsageError(f"{self._name}: {exc}") from None


def read_settings(path: Path | None, said: dict[str, Any]) -> Settings:
    """Return the settings of a file, changed by what the command line says.

    Args:
        path: the file; None for none.
        said: the attributes that the command line says; None for those that it leaves.

    Raises:
        UsageError: something can't be; for a file the error names it, and the key or the line.
    """
    settings = Settings()
    if path is not None:
        table = Table.read(path)
        found: dict[str, Any] = {}
        for field in fields(Settings):
            key = field.name.replace("_", "-")
            value: Any
            if field.name == "grace":
                value = table.seconds(key)
            elif field.name == "workers":
                value = table.number(key)
            elif field.name in NETWORKS:
                value = table.texts(key)
            else:
                value = table.text(key)
            if value is not None and field.name in ("state", "rights"):
                value = path.parent / value
            if value is not None:
                found[field.name] = value
        table.finish()
        settings = replace(settings, **found)
        try:
            settings.check()
        except UsageError as exc:
            raise UsageError(f"{path}: {exc}") from None
    settings = replace(settings, **{key: value for key, value in said.items() if value})
    settings.check()
    return settings


def directory_at(url: str) -> Directory:
    """Return the directory in the engine at a URL.

    Args:
        url: ``redis://``, ``rediss://``, ``unix://``, ``nats://`` or ``tls://``.

    Raises:
        UsageError: it is none of these.
        ImportError: the extra for it is missing.
    """
    scheme = url.partition("://")[0]
    if scheme in ("redis", "rediss", "unix"):
        from ..cluster.redis import RedisDirectory

        return RedisDirectory(url)
    if scheme in ("nats", "tls"):
        from ..cluster.nats import NatsDirectory

        return NatsDirectory(url.split(","))
    raise UsageError("a directory is at redis://, rediss://, unix://, nats:// or tls://")


def _check_network(text: str) -> None:
    if text != "unix":
        try:
            ip_network(text)
        except ValueError:
            raise UsageError(f"no network, such as 10.0.0.0/8: {text!r:.60}") from None
