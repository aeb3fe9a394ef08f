"""What the peer has not read of streams that are done: its credit tells, and an end waits."""

from __future__ import annotations

from muxado.core import NOTHING, CoreSession
from muxado.core.stream_table import MOST_OWED

from .wires import NOW, said, session, v1_credit, v1_end


def finish(core: CoreSession, sizes: list[int]) -> list[int]:
    """Send so many bytes on a stream each, and have both ends of all done; return the ids."""
    streams = [core.open() for _ in sizes]
    for stream, size in zip(streams, sizes, strict=True):
        stream.write(bytes(size))
        stream.finish()
    while said(core):
        pass
    core.receive_data(b"".join(v1_end(stream.stream_id) for stream in streams), NOW)
    assert core.table.live == 0
    return [stream.stream_id for stream in streams]


def test_the_end_waits_for_all_the_credit_of_a_stream_that_is_done() -> None:
    core = session("muxado-v1", client=True)
    (stream_id,) = finish(core, [10])
    core.close(NOW)
    said(core)
    for part in (3, 6):
        assert core.closing.output_step() == NOTHING
        core.receive_data(v1_credit(stream_id, part), NOW)
    assert core.closing.output_step() == NOTHING
    core.receive_data(v1_credit(stream_id, 1), NOW)
    assert core.closing.output_step() != NOTHING


def test_credit_beyond_what_is_owed_does_no_harm() -> None:
    core = session("muxado-v1", client=True)
    first, second = finish(core, [10, 10])
    core.receive_data(v1_credit(first, 100) + v1_credit(first, 100), NOW)
    core.close(NOW)
    said(core)
    assert core.closing.output_step() == NOTHING
    core.receive_data(v1_credit(second, 10), NOW)
    assert core.closing.output_step() != NOTHING


def test_of_very_many_streams_the_last_ones_are_waited_for() -> None:
    core = session("muxado-v1", client=True)
    ids = finish(core, [1] * (MOST_OWED + 3))
    core.close(NOW)
    said(core)
    core.receive_data(b"".join(v1_credit(stream_id, 1) for stream_id in ids[4:]), NOW)
    assert core.closing.output_step() == NOTHING
    core.receive_data(v1_credit(ids[3], 1), NOW)
    assert core.closing.output_step() != NOTHING
