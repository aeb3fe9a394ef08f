"""What a peer gets that breaks the rules of its wire, as the table on the page has it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from muxado.config import Config
from muxado.core import CoreSession
from muxado.wire import FORMATS
from muxado.wire.codec import RESET

from ..frames import Packer, read_frames

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "wires.md"
NOW = 100.0


class Peer:
    """A client's frames, and the server that takes them."""

    def __init__(self, wire: str) -> None:
        self.wire = FORMATS[wire]
        self.packer = Packer(self.wire)
        self.core = CoreSession(client=False, config=Config(wire=wire, accept_backlog=2), now=NOW)
        rules = self.wire.rules
        self.first = rules.first_client_id
        self.window = min(rules.first_window, 1 << 20)

    def syn(self, stream_id: int) -> bytes:
        return self.packer.data(stream_id, 0, syn=True)

    def data(self, stream_id: int, size: int) -> bytes:
        return self.packer.data(stream_id, size)

    def fin(self, stream_id: int) -> bytes:
        return self.packer.data(stream_id, 0, fin=True)

    def outcome(self, sent: bytes, ends: bool = False) -> str:
        """Return what the server makes of it, in the words of the table."""
        core = self.core
        core.receive_data(sent, NOW)
        for _ in range(3):
            core.resume(NOW)
        if ends:
            core.receive_eof(NOW)
        if core.reason is not None:
            clean = ", clean" if core.reason.clean else ""
            return f"the session ends: {core.reason.code}{clean}"
        if not core.wants_input:
            return "waits"
        said = read_frames([core.data_to_send(NOW, 1 << 20)], self.wire)
        resets = [frame.code for frame in said if frame.kind == RESET]
        if not resets:
            return "nothing"
        return f"reset: {resets[0]}" if self.wire.rules.codes else "reset"


def opened(peer: Peer) -> bytes:
    return peer.syn(peer.first)


ROWS: dict[str, Callable[[Peer], str]] = {
    "data for a stream that was never opened": lambda p: p.outcome(p.data(p.first, 5)),
    "data after the end": lambda p: p.outcome(opened(p) + p.fin(p.first) + p.data(p.first, 5)),
    "an end twice": lambda p: p.outcome(opened(p) + p.fin(p.first) * 2),
    "a stream opened twice": lambda p: p.outcome(opened(p) * 2),
    "a stream opened with an id of this side": lambda p: p.outcome(p.syn(2)),
    "ids that fall": lambda p: p.outcome(p.syn(p.first + 2) + p.syn(p.first)),
    "more data than the window": lambda p: p.outcome(opened(p) + p.data(p.first, p.window + 1)),
    "more streams than are accepted": lambda p: p.outcome(
        b"".join(p.syn(p.first + 2 * n) for n in range(3))
    ),
    "what is no frame": lambda p: p.outcome(opened(p) + b"\xff" * 16),
    "the connection's end inside a frame": lambda p: p.outcome(opened(p)[:-1], ends=True),
    "the connection's end between frames": lambda p: p.outcome(
        opened(p) + p.fin(p.first), ends=True
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_the_page_says_what_a_breach_gives(name: str) -> None:
    row = re.search(rf"^\| {re.escape(name)} \| (.*) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert row is not None
    assert row[1].split(" | ") == [ROWS[name](Peer(wire)) for wire in FORMATS]
