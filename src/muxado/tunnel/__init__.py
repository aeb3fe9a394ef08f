"""The tunnel: services behind a NAT or a firewall, reached through a server, both verified.

A client is invited once, and from then on has a key of its own; it knows the server by the server's
key. What a client may do is said by rules (see `muxado.tunnel.rules`). This is what the commands
``muxado server``, ``expose``, ``forward`` and ``socks`` are made of.
"""

from __future__ import annotations

from .client import Client
from .forwarding import Forward
from .invitations import Invitation
from .offers import Exposed
from .pins import WrongPin
from .rules import DEFAULT_RULES, Rights, Rule
from .server import Server
from .socks import SocksTarget
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
    "SocksTarget",
    "Target",
    "WrongPin",
]
