"""The sans-I/O session: no sockets, no clock, no tasks, no threads.

Bring your own I/O::

    core = CoreSession(client=True, config=Config(), now=time.monotonic())
    stream = core.open()
    stream.write(b"hello")
    transport.write(core.data_to_send(now, 65536))       # bytes out by one call
    count = transport.read_into(core.receive_buffer())
    core.bytes_received(count, now)                      # bytes in by one call
    for waiter in core.take_wakes(): ...                 # and whom to wake

See docs/architecture.md for how a shell drives it.
"""

from .session import CoreSession
from .stats import SessionStats
from .stream import CoreStream

__all__ = ["CoreSession", "CoreStream", "SessionStats"]
