"""Tells systemd, or what else has set NOTIFY_SOCKET, how a service is: READY=1, STOPPING=1."""

from __future__ import annotations

import os
import socket

__all__ = ["notify"]


def notify(text: str) -> None:
    """Send a state, as ``READY=1``; nothing happens where it is not asked for."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")) or not hasattr(socket, "AF_UNIX"):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(text.encode(), f"\0{path[1:]}" if path[0] == "@" else path)
        except OSError:
            return  # who has asked is gone
