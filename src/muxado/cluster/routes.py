"""How a route is written down in an engine: "EPOCH NODE ADDRESS IDENTITY"."""

from __future__ import annotations

import re

from .directory import Place, Route

__all__ = ["pack_route", "parse_route"]

EPOCH = re.compile("[0-9]{1,19}")


def pack_route(route: Route) -> bytes:
    """Return a route as bytes."""
    place = route.place
    return f"{route.epoch} {place.node} {place.address} {route.identity}".encode()


def parse_route(value: bytes | None) -> Route | None:
    """Return what a value says; None for none, and for what says nothing."""
    words = (value or b"").decode("utf-8", "replace").split(" ", 3)
    if len(words) != 4 or EPOCH.fullmatch(words[0]) is None:
        return None
    return Route(Place(words[1], words[2]), int(words[0]), words[3])
