"""Types that a frame carries, and those that are for the wire's own extensions."""

from __future__ import annotations

import pytest

from muxado.errors import ErrorCode
from muxado.wire import FORMATS
from muxado.wire.codec import RESET
from muxado.wire.muxado_v1 import FIRST_RESERVED_TYPE, HEARTBEAT_TYPE

from ..frames import read_frames
from .wires import NOW, said, session

V1 = FORMATS["muxado-v1"]


def syn(stream_type: int) -> bytes:
    """Return the frame that opens stream 3 with a type, which no application of ours could send."""
    return V1.encoder.open(3, stream_type, 0)


@pytest.mark.parametrize("stream_type", [HEARTBEAT_TYPE + 1, 0xFFFFFFFF])
def test_a_type_that_is_reserved_is_refused(stream_type: int) -> None:
    assert stream_type > FIRST_RESERVED_TYPE
    core = session("muxado-v1")
    core.receive_data(syn(stream_type), NOW)
    assert core.accept() is None
    resets = [frame for frame in read_frames([said(core)], V1) if frame.kind == RESET]
    assert [(frame.stream_id, frame.code) for frame in resets] == [(3, ErrorCode.STREAM_CLOSED)]
    assert core.reason is None


def test_the_last_type_below_them_is_the_applications() -> None:
    core = session("muxado-v1")
    core.receive_data(syn(FIRST_RESERVED_TYPE - 1), NOW)
    stream = core.accept()
    assert stream is not None
    assert stream.type == FIRST_RESERVED_TYPE - 1
