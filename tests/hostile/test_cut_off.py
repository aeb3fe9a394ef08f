"""Recorded conversations that end at every byte: always a documented end, and no data lost."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from muxado.core import ENDED
from muxado.errors import ErrorCode, MuxadoError
from muxado.wire.codec import DATA, GO_AWAY
from tests import inside
from tests.patience import patience

from ..core.test_transcripts import NOW, SCRIPTS, Replay
from ..frames import Frame, FrameReader, read_frames

# Every how many bytes the long ones are cut; the others at each.
STEPS = {"100-interleaved": 31, "flow-control-1mib": 19_997}
# And if there is time.
SLOW_STEPS = {"100-interleaved": 1, "flow-control-1mib": 499}
# At the start and the end even these are cut at each byte.
MARGIN = 40


def last_turn(replay: Replay) -> None:
    """Let the application take what there is; to go on is refused by documented errors."""
    with contextlib.suppress(MuxadoError):
        replay.turn()
    while inside.accept_queue(replay.core) and (stream := replay.core.accept()) is not None:
        replay.app.add(stream)
    for stream in list(replay.app.streams):
        replay.app.take_all(stream)
    replay.flush()


def end_of_input(replay: Replay) -> None:
    replay.core.receive_eof(NOW)
    last_turn(replay)
    replay.core.connection_lost(None, NOW)


def reset(replay: Replay) -> None:
    replay.core.connection_lost(ConnectionResetError("reset by peer"), NOW)


def lost(replay: Replay) -> None:
    replay.core.connection_lost(None, NOW)


SLOWLY = [pytest.mark.slow, pytest.mark.timeout(patience(900))]
CASES = [pytest.param(scenario, STEPS.get(scenario, 1)) for scenario in SCRIPTS]
CASES += [pytest.param(*case, marks=SLOWLY) for case in SLOW_STEPS.items()]


@pytest.mark.parametrize("end", [end_of_input, reset, lost])
@pytest.mark.parametrize("client", [True, False], ids=["as-client", "as-server"])
@pytest.mark.parametrize(("scenario", "step"), CASES)
def test_a_conversation_cut_off_at_every_byte(
    scenario: str, step: int, client: bool, end: Callable[[Replay], None]
) -> None:
    length = sum(map(len, Replay(scenario, client).parts))
    for place in range(length + 1):
        if place % step == 0 or place < MARGIN or place > length - MARGIN:
            check_cut_off(scenario, client, place, end)


def check_cut_off(scenario: str, client: bool, place: int, end: Callable[[Replay], None]) -> None:
    replay = Replay(scenario, client)
    heard = FrameReader()
    for part in replay.parts:
        piece = part[:place]
        place -= len(piece)
        heard.feed(piece)
        for read in replay.reads(piece):
            replay.core.receive_data(read, NOW)
            replay.turn()
    closed_here = replay.core.ledger.closed_here
    end(replay)
    last_turn(replay)
    assert replay.core.ledger.state == ENDED
    assert not inside.streams(replay.core)
    assert not replay.sent.failed
    assert not replay.sent.decoder.inside_frame()
    check_reason(replay, heard, end, closed_here)
    check_delivered(replay, heard)


def check_reason(
    replay: Replay, heard: FrameReader, end: Callable[[Replay], None], closed_here: bool
) -> None:
    reason = replay.core.reason
    assert reason is not None
    if closed_here:
        assert (reason.code, reason.by_peer, reason.clean) == (ErrorCode.NO_ERROR, False, True)
    elif any(frame.kind == GO_AWAY for frame in heard.frames):
        assert (reason.code, reason.by_peer, reason.clean) == (ErrorCode.NO_ERROR, True, True)
    elif end is reset:
        assert (reason.code, reason.by_peer) == (ErrorCode.UNKNOWN, True)
        assert isinstance(reason.exception, ConnectionResetError)
        assert not reason.clean
    elif heard.decoder.inside_frame():
        assert (reason.code, reason.by_peer) == (ErrorCode.UNKNOWN, True)
        assert not reason.clean
    else:
        assert (reason.code, reason.by_peer) == (ErrorCode.PEER_EOF, True)
    if end is end_of_input and not closed_here and not reason.clean:
        assert replay.sent.frames[-1].kind == GO_AWAY
        assert replay.sent.frames[-1].code == reason.code


def check_delivered(replay: Replay, heard: FrameReader) -> None:
    """Check that the application has read every byte that came, and each end."""
    app = replay.app
    prefix = 4 if app.script.types and not replay.opens else 0
    came: dict[int, list[Frame]] = {}
    for frame in heard.frames:
        if frame.kind == DATA and frame.stream_id != 1:
            came.setdefault(frame.stream_id, []).append(frame)
    for stream_id, frames in came.items():
        payload = b"".join(frame.body for frame in frames)[prefix:]
        if stream_id not in app.read:
            typeless = prefix > len(b"".join(frame.body for frame in frames))
            assert replay.core.ledger.closed_here or stream_id in app.script.refused or typeless
            continue
        if not replay.core.ledger.closed_here:
            assert app.read[stream_id] == payload
        complete = frames[-1].fin and len(frames[-1].body) == frames[-1].length
        if complete and replay.opens:
            assert stream_id in app.ended


def test_the_frames_of_a_conversation_are_whole() -> None:
    for scenario in SCRIPTS:
        for client in (True, False):
            replay = Replay(scenario, client)
            assert all(frame.kind for frame in read_frames(replay.parts))
