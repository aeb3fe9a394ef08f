"""The decoder's buffer, which is the same for every wire."""

from __future__ import annotations

import pytest

from muxado.wire import FORMATS
from muxado.wire.codec import (
    DATA,
    FIRST_READ_SIZE,
    IDLE_READ_SIZE,
    NEED_MORE,
    READ_SIZE,
    Decoder,
)


def put(decoder: Decoder, data: bytes) -> None:
    """Put bytes where the transport's next ones go."""
    decoder.space()[: len(data)] = data
    decoder.filled(len(data))


@pytest.mark.parametrize("wire", FORMATS)
def test_a_buffer_that_idled_grows_when_a_read_fills_it_up_to_the_middle_of_a_frame(
    wire: str,
) -> None:
    """Or a burst after a pause would be read in pieces of the small buffer."""
    decoder, encoder = FORMATS[wire].new_decoder(), FORMATS[wire].encoder
    decoder.shrink()
    assert len(decoder.space()) == IDLE_READ_SIZE
    header = encoder.data_header(3, 1000, False, False)
    length = IDLE_READ_SIZE - len(header) - 3  # so that 3 bytes of the next header fit
    header = encoder.data_header(3, length, False, False)
    frames = (header + bytes(length)) * 2
    put(decoder, frames[:IDLE_READ_SIZE])
    assert decoder.next() == DATA
    assert decoder.take() == bytes(length)
    assert decoder.next() == NEED_MORE
    assert len(decoder.space()) == FIRST_READ_SIZE - 3
    put(decoder, frames[IDLE_READ_SIZE:])
    assert decoder.next() == DATA
    assert decoder.take() == bytes(length)


def test_a_buffer_grows_up_to_the_largest_read_and_is_given_back() -> None:
    decoder = FORMATS["muxado-v2"].new_decoder()
    grown: list[int] = []
    decoder.on_growth = lambda: grown.append(len(decoder.space()))
    assert len(decoder.space()) == FIRST_READ_SIZE
    decoder.make_room(READ_SIZE + 1)
    assert len(decoder.space()) == READ_SIZE
    assert len(grown) == 1
    decoder.shrink()
    assert len(decoder.space()) == IDLE_READ_SIZE
    decoder.release()
    assert len(decoder.space()) > 0
