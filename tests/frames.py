"""What a decoder makes of bytes, whatever pieces they come in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from muxado.wire import MUXADO_V2, Rules, WireFormat
from muxado.wire.codec import (
    BAD_FRAME,
    CREDIT,
    DATA,
    GO_AWAY,
    NEED_MORE,
    PING,
    PONG,
    RESET,
    WINDOW,
)


@dataclass
class Frame:
    """A frame as the decoder announced it; only the fields of its kind are set."""

    kind: int
    stream_id: int
    syn: bool = False
    fin: bool = False
    length: int = 0
    body: bytearray = field(default_factory=bytearray)
    value: int = 0
    code: int = 0
    text: bytes = b""
    window: int = 0
    type: int = 0
    priority: int = 0


class FrameReader:
    """Drives a decoder as a session does, and keeps the frames.

    Attributes:
        frames: what has been announced; the last DATA frame's body may still grow.
        failed: True after BAD_FRAME, the last of `frames`; later input is ignored.
    """

    def __init__(self, wire: WireFormat = MUXADO_V2) -> None:
        self.decoder = wire.new_decoder()
        self.frames: list[Frame] = []
        self.failed = False

    def feed(self, data: bytes) -> None:
        """Take in bytes and parse what is complete."""
        view = memoryview(data)
        while len(view) and not self.failed:
            space = self.decoder.space()
            assert len(space) > 0, "there is no room for the transport's next bytes"
            count = min(len(space), len(view))
            space[:count] = view[:count]
            view = view[count:]
            self.decoder.filled(count)
            self._parse()

    def _parse(self) -> None:
        decoder = self.decoder
        while not self.failed:
            if decoder.body:
                chunk = decoder.take()
                if not chunk:
                    return
                self.frames[-1].body += chunk
                continue
            kind = decoder.next()
            if kind == NEED_MORE:
                return
            self.failed = kind == BAD_FRAME
            self.frames.append(self._frame(kind))

    def _frame(self, kind: int) -> Frame:
        decoder = self.decoder
        frame = Frame(kind, decoder.stream_id)
        if kind == DATA:
            frame.syn = decoder.syn
            frame.fin = decoder.fin
            frame.length = decoder.length
            if decoder.syn:
                frame.type = decoder.type
                frame.priority = decoder.priority
        if kind == WINDOW:
            frame.window = decoder.window
        if kind in (CREDIT, GO_AWAY, WINDOW, PING, PONG):
            frame.value = decoder.value
        if kind in (RESET, GO_AWAY, BAD_FRAME):
            frame.code = decoder.code
        if kind in (GO_AWAY, BAD_FRAME):
            frame.text = decoder.text
        return frame


def read_frames(pieces: Iterable[bytes], wire: WireFormat = MUXADO_V2) -> list[Frame]:
    """Return the frames in bytes that come in pieces."""
    reader = FrameReader(wire)
    for piece in pieces:
        reader.feed(piece)
    return reader.frames


class Packer:
    """Packs what a peer sends, in the frames that its wire has for it.

    Attributes:
        rules: those of the wire.
    """

    def __init__(self, wire: WireFormat) -> None:
        self.rules: Rules = wire.rules
        self._encoder = wire.encoder

    def data(self, stream_id: int, size: int, *, syn: bool = False, fin: bool = False) -> bytes:
        """Return so many zero bytes on a stream, perhaps opening or ending it."""
        parts = []
        if syn and self.rules.opens_apart:
            parts.append(self._encoder.open(stream_id, 0, 0))
            syn = False
            if not (size or fin):
                return parts[0]
        apart = fin and size > 0 and not self.rules.fin_rides
        left = size
        while True:
            length = min(left, self.rules.max_data)
            left -= length
            last = fin and not left and not apart
            parts.append(self._encoder.data_header(stream_id, length, syn, last) + bytes(length))
            syn = False
            if not left:
                break
        if apart:
            parts.append(self._encoder.data_header(stream_id, 0, False, True))
        return b"".join(parts)

    def reset(self, stream_id: int, code: int) -> bytes:
        return self._encoder.reset(stream_id, code)

    def credit(self, stream_id: int, more: int) -> bytes:
        """Return credit for so many bytes more, of a stream on which nothing was sent."""
        if self.rules.total_credit:
            return self._encoder.window(stream_id, 0, self.rules.first_window + more)
        return self._encoder.credit(stream_id, more)


def cut_at(data: bytes, places: Iterable[int]) -> Iterator[bytes]:
    """Yield the pieces of `data` between the given offsets, in any order."""
    start = 0
    for place in [*sorted(places), len(data)]:
        yield data[start:place]
        start = place
