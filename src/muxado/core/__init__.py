"""The sans-I/O session: no sockets, no clock, no tasks, no threads.

Bring your own I/O::

    core = CoreSession(client=True, config=Config(), now=time.monotonic())
    stream = core.open()
    stream.write(b"hello")
    transport.write(core.data_to_send(now, 65536))       # bytes out by one call
    count = transport.read_into(core.receive_buffer())
    core.bytes_received(count, now)                      # bytes in by one call
    for waiter in core.take_wakes(): ...                 # and what to wake

What else a front end needs is here too, and nothing of the modules below is for it: the events
of `CoreSession.take_events`, the steps of `Closing.output_step`, the states of sessions and
streams, and the parts of a session that are asked for what they know or do alone: its `Ledger`,
`StreamTable`, `Closing` and `Liveness`. See docs/architecture.md for how a front end drives it.
"""

from .closing import ABORT, CLOSE, HALF_CLOSE, NOTHING, WRITE, Closing
from .ledger import ACCEPTABLE, ANSWERED, DRAINED, ENDING, GOAWAY, Ledger
from .liveness import Liveness
from .memory_pool import MemoryPool
from .session import CoreSession
from .states import (
    CLOSED,
    CLOSING,
    DRAINING,
    ENDED,
    IDLE,
    LOCAL_DONE,
    OPEN,
    REMOTE_DONE,
    RUNNING,
    SESSION_STATES,
    STREAM_STATES,
)
from .stats import SessionStats, StreamSnapshot
from .stream import CoreStream
from .stream_table import StreamTable

__all__ = [
    "ABORT",
    "ACCEPTABLE",
    "ANSWERED",
    "CLOSE",
    "CLOSED",
    "CLOSING",
    "DRAINED",
    "DRAINING",
    "ENDED",
    "ENDING",
    "GOAWAY",
    "HALF_CLOSE",
    "IDLE",
    "LOCAL_DONE",
    "NOTHING",
    "OPEN",
    "REMOTE_DONE",
    "RUNNING",
    "SESSION_STATES",
    "STREAM_STATES",
    "WRITE",
    "Closing",
    "CoreSession",
    "CoreStream",
    "Ledger",
    "Liveness",
    "MemoryPool",
    "SessionStats",
    "StreamSnapshot",
    "StreamTable",
]
