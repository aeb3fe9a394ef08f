"""What a server of a cluster tells of itself."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NodeStats"]


@dataclass(frozen=True)
class NodeStats:
    """What a server of a cluster holds, and has done.

    Attributes:
        registered: sessions that have a name here.
        claimed: names whose claim is in the directory.
        waiting: claims that wait for the directory's engine.
        peers: sessions with other servers.
        routes: names whose server is remembered.
        opened_here: streams opened to sessions of this server.
        opened_there: streams opened to sessions of other servers.
        passed_on: streams that other servers have opened to sessions of this one.
        refuted: routes that were wrong.
        look_ups: questions to the directory.
        trouble: why the directory can't be used, "" if it can.
        draining: whether this server is about to end.
    """

    registered: int
    claimed: int
    waiting: int
    peers: int
    routes: int
    opened_here: int
    opened_there: int
    passed_on: int
    refuted: int
    look_ups: int
    trouble: str
    draining: bool
