"""Past one machine: several servers that serve one fleet, and a directory of who is where.

A client is connected to any of the servers, and whoever asks any of them reaches it. The directory
is an engine that is there already; the data never goes through it.
"""

from __future__ import annotations

from .claims import Claims, Held
from .directory import Claim, Directory, Lost, Place, Route
from .errors import (
    ClusterError,
    DirectoryAway,
    HeaderError,
    NameAway,
    NameTaken,
    NameUnknown,
    Refused,
    Superseded,
)
from .lines import HEADER_LIMIT, MESSAGE_LIMIT, VERSION, Header, Message, Verdict, check_version
from .memory import MemoryDirectory
from .names import check_name, is_name

__all__ = [
    "HEADER_LIMIT",
    "MESSAGE_LIMIT",
    "VERSION",
    "Claim",
    "Claims",
    "ClusterError",
    "Directory",
    "DirectoryAway",
    "Header",
    "HeaderError",
    "Held",
    "Lost",
    "MemoryDirectory",
    "Message",
    "NameAway",
    "NameTaken",
    "NameUnknown",
    "Place",
    "Refused",
    "Route",
    "Superseded",
    "Verdict",
    "check_name",
    "check_version",
    "is_name",
]
