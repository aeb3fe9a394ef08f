"""Several servers that serve one fleet, and a directory that says which client is where.

A client connects to any of the servers and can be reached through each of them. The directory is
an engine that is there already; the data never goes through it.
"""

from __future__ import annotations

from .claims import Claims, Held
from .control import Control, join, welcome
from .credentials import PeerTLS
from .directory import Claim, Directory, Lost, Note, Place, Route
from .errors import (
    ClusterError,
    Denied,
    DirectoryAway,
    HeaderError,
    NameAway,
    NameTaken,
    NameUnknown,
    Refused,
    Superseded,
)
from .lines import HEADER_LIMIT, MESSAGE_LIMIT, VERSION, Header, Message, Verdict, check_version
from .member import Member, read_header
from .memory import MemoryDirectory
from .names import check_name, is_name
from .node import Node
from .outgoing import Passing
from .registration import Registration
from .stats import NodeStats

__all__ = [
    "HEADER_LIMIT",
    "MESSAGE_LIMIT",
    "VERSION",
    "Claim",
    "Claims",
    "ClusterError",
    "Control",
    "Denied",
    "Directory",
    "DirectoryAway",
    "Header",
    "HeaderError",
    "Held",
    "Lost",
    "Member",
    "MemoryDirectory",
    "Message",
    "NameAway",
    "NameTaken",
    "NameUnknown",
    "Node",
    "NodeStats",
    "Note",
    "Passing",
    "PeerTLS",
    "Place",
    "Refused",
    "Registration",
    "Route",
    "Superseded",
    "Verdict",
    "check_name",
    "check_version",
    "is_name",
    "join",
    "read_header",
    "welcome",
]
