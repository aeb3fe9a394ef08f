"""What a session may say, whatever it hears: the sender's rules of docs/protocol.md section 14."""

from __future__ import annotations

from dataclasses import dataclass

from muxado.core import CoreSession
from muxado.errors import ErrorCode
from muxado.wire.codec import CREDIT, DATA, GO_AWAY, NEED_MORE, RESET
from tests import inside

from ..frames import Frame, FrameReader

LAST_ID = 0x7FFFFFFF
PING_ID = 1

# The codes of GOAWAYs for what the peer does wrong, which it can while we close, too.
FAULTS = {
    ErrorCode.PROTOCOL_ERROR,
    ErrorCode.FRAME_SIZE_ERROR,
    ErrorCode.ENHANCE_YOUR_CALM,
    ErrorCode.PEER_EOF,
    ErrorCode.UNKNOWN,
}

# The codes of RSTs that no call here has asked for: docs/protocol.md sections 9 and 12.
RESETS = {
    ErrorCode.FLOW_CONTROL_ERROR,
    ErrorCode.STREAM_CLOSED,
    ErrorCode.STREAM_REFUSED,
    ErrorCode.STREAM_CANCELLED,
    ErrorCode.ACCEPT_QUEUE_FULL,
    ErrorCode.ENHANCE_YOUR_CALM,
}


@dataclass
class Said:
    """What has been said on one of our own ids."""

    opened: bool = False
    finished: bool = False
    reset: bool = False


class Rules:
    """Reads both directions, and checks ours.

    Credit is checked by what the peer has granted at most: a window for each SYN of an id, and
    the sum of its WNDINCs.

    Attributes:
        own_resets: the streams that the application has reset, and its codes.
        announced: the codes of GOAWAYs that end nothing yet, which the application has sent.
    """

    def __init__(self, core: CoreSession) -> None:
        self.core = core
        self.window = core.ledger.config.initial_window or 0
        self.parity = inside.next_id(core) % 2
        self.heard = FrameReader()
        self.spoken = FrameReader()
        self.credit: dict[int, int] = {}
        self.own: dict[int, Said] = {}
        self.own_resets: set[tuple[int, int]] = set()
        self.announced: set[int] = set()

    def hear(self, wire: bytes) -> None:
        """Note what the peer says, before the session hears it."""
        self.heard.feed(wire)
        for frame in self._taken(self.heard):
            if frame.kind == DATA and frame.syn:
                self.credit[frame.stream_id] = self.credit.get(frame.stream_id, 0) + self.window
            elif frame.kind == CREDIT:
                self.credit[frame.stream_id] = self.credit.get(frame.stream_id, 0) + frame.value

    def speak(self, wire: bytes, syn_allowed: bool) -> None:
        """Check what the session says."""
        self.spoken.feed(wire)
        assert not self.spoken.failed, self.spoken.frames[-1]
        assert not self.spoken.decoder.inside_frame(), "a flush ends within a frame"
        for frame in self._taken(self.spoken):
            self._check(frame, syn_allowed)

    def _taken(self, reader: FrameReader) -> list[Frame]:
        frames = reader.frames
        # What is still to come of the last one's body goes somewhere else.
        reader.frames = [Frame(NEED_MORE, 0)] if reader.decoder.body else []
        return [frame for frame in frames if frame.kind != NEED_MORE]

    def _check(self, frame: Frame, syn_allowed: bool) -> None:
        stream_id = frame.stream_id
        if frame.kind == GO_AWAY:
            assert len(frame.text) <= 128
            reason = self.core.reason
            if frame.code not in self.announced:
                assert reason is not None, "a GOAWAY, and the session goes on"
                late = self.core.ledger.closed_here and frame.code in FAULTS
                assert frame.code == reason.code or late
            return
        assert 1 <= stream_id <= LAST_ID
        if stream_id % 2 == self.parity and stream_id != PING_ID:
            self._check_own(frame, syn_allowed)
        if frame.kind == CREDIT:
            assert frame.value >= 1
        elif frame.kind == RESET:
            own = (stream_id, frame.code) in self.own_resets
            assert own or frame.code in RESETS
        elif frame.kind == DATA:
            assert not (frame.syn and frame.fin), "a Go peer could not answer"
            assert not (frame.syn and stream_id % 2 != self.parity)
            if frame.length:
                left = self.credit.get(stream_id, 0) - frame.length
                assert left >= 0, "more than the peer's credit"
                self.credit[stream_id] = left

    def _check_own(self, frame: Frame, syn_allowed: bool) -> None:
        """Check the order of frames on an id that only we can open, and only once."""
        said = self.own.setdefault(frame.stream_id, Said())
        if frame.kind == DATA:
            if frame.syn:
                assert not said.opened
                assert syn_allowed, "SYN after the peer's GOAWAY"
                said.opened = True
                self.credit[frame.stream_id] = self.credit.get(frame.stream_id, 0) + self.window
            assert said.opened, "DATA before SYN"
            assert not said.finished, "DATA after FIN"
            assert not said.reset, "DATA after RST"
            said.finished = frame.fin
        elif frame.kind == CREDIT:
            assert said.opened
            assert not said.reset, "WNDINC after RST"
        elif frame.kind == RESET and said.opened:
            said.reset = True
