"""The tunnel: services behind a NAT or a firewall, reached through a server, both verified.

A client is invited once, and from then on has a key of its own; it knows the server by the server's
key. What a client may do is said by rules (see `muxado.tunnel.rules`). This is what the commands
``muxado server``, ``expose`` and ``forward`` are made of.
"""

from __future__ import annotations

from .client import Client, Exposed, Forward
from .invitations import Invitation
from .pins import WrongPin
from .rules import DEFAULT_RULES, Rights, Rule
from .server import Server
from .state import ClientState, Known, ServerState
from .targets import Target

__all__ = [
    "DEFAULT_RULES",
    "Client",
    "ClientState",
    "Exposed",
    "Forward",
    "Invitation",
    "Known",
    "Rights",
    "Rule",
    "Server",
    "ServerState",
    "Target",
    "WrongPin",
]
