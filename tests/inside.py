"""What tests look at inside a core session: the one place that knows where it is kept.

A test that only needs what a front end needs does without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sized

from muxado.core import CoreSession, CoreStream
from muxado.core.credit import FLOOR, LEAST_SHARE, CreditEstimator
from muxado.core.guards import CHURN_LEAST, MAX_RECENTLY_RESET, RecentlyReset
from muxado.core.liveness import Liveness
from muxado.core.pace import FAIR_DATA, LONG_DATA, LONGEST_DATA
from muxado.core.receiver import BATCH_SIZE
from muxado.core.resets import MAX_ANSWERS
from muxado.wire import Decoder

__all__ = [
    "BATCH_SIZE",
    "CHURN_LEAST",
    "FAIR_DATA",
    "FLOOR",
    "LEAST_SHARE",
    "LONGEST_DATA",
    "LONG_DATA",
    "MAX_ANSWERS",
    "MAX_RECENTLY_RESET",
    "CreditEstimator",
    "Liveness",
    "accept_queue",
    "claimed",
    "credit",
    "credit_received",
    "decoder",
    "heartbeats",
    "held",
    "incoming",
    "liveness",
    "next_id",
    "output_done",
    "peer_gone",
    "pending",
    "pending_resets",
    "probe_times",
    "recently_reset",
    "recently_reset_ids",
    "scheduled",
    "set_next_id",
    "streams",
    "stuck",
    "torn_down",
    "unread",
]


def streams(core: CoreSession) -> Mapping[int, CoreStream]:
    """The streams that are alive, heartbeats among them."""
    return core.table.streams


def accept_queue(core: CoreSession) -> Mapping[int, CoreStream]:
    """The streams that wait for `accept`."""
    return core.table.accept_queue


def incoming(core: CoreSession) -> int:
    """How many streams count in `max_incoming_streams`."""
    return core.table.incoming


def heartbeats(core: CoreSession) -> int:
    return core.table.heartbeats


def next_id(core: CoreSession) -> int:
    """The id of the next stream that is opened."""
    return core.table.next_id


def set_next_id(core: CoreSession, stream_id: int) -> int:
    """Have the next stream get an id, as if many had been opened before; return the id."""
    core.table.next_id = stream_id
    return stream_id


def decoder(core: CoreSession) -> Decoder:
    return core._decoder


def liveness(core: CoreSession) -> Liveness:
    return core.liveness


def credit(core: CoreSession) -> CreditEstimator:
    return core._window.credit


def longest_frame(core: CoreSession) -> int:
    """Return how long the frames are of a stream that has the session to itself."""
    return core._sender._pace.longest


def unread(core: CoreSession) -> int:
    """How many bytes are received, and neither taken nor claimed by a reader."""
    return core._window.unread


def claimed(core: CoreSession) -> int:
    """How many bytes are received that readers wait to have more of."""
    return core._window.claimed


def credit_received(core: CoreSession, stream: CoreStream, increment: int) -> None:
    """Take credit for a stream that no frame can carry at once."""
    stream.credit_received(increment)


def held(core: CoreSession) -> bool:
    """Whether parsing has stopped in the middle of a read."""
    return core._receiver.paused


def stuck(core: CoreSession) -> bool:
    """Whether parsing has stopped until the transport takes what waits."""
    return core._receiver.paused_for_output


def recently_reset(core: CoreSession) -> RecentlyReset:
    """The streams this side has reset, as far as they are remembered."""
    return core.table.resets.recent


def recently_reset_ids(core: CoreSession) -> Sized:
    return core.table.resets.recent._ids


def pending(core: CoreSession) -> bool:
    """Whether anything waits to be sent."""
    return core._sender.pending()


def pending_resets(core: CoreSession) -> Mapping[int, int]:
    """The codes of the RSTs that wait to be sent, by stream."""
    return core.table.resets.waiting


def scheduled(core: CoreSession) -> int:
    """How many streams have something to send."""
    return core.table.scheduler.waiting


def probe_times(core: CoreSession) -> Sized:
    """When stalled streams are to be asked after, those among them that stall no more."""
    return core.table.stalls._times


def peer_gone(core: CoreSession) -> bool:
    """Whether the peer has sent a GOAWAY."""
    return core.closing.peer_goaway is not None


def output_done(core: CoreSession) -> bool:
    """Whether the session will send nothing more."""
    return core._sender.done()


def torn_down(core: CoreSession) -> bool:
    """Whether the transport is to be ended without ceremony."""
    return core.closing.transport_aborted
