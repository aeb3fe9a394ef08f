"""What idle sessions keep: `python -m tests.reliability.idle_memory asyncio tls 80 170`.

It prints KiB for both ends of a session together, once that is at most the limit or after a while;
then the same after bulk each way.
Everything that `malloc` has given out counts, OpenSSL's too; run it with PYTHONMALLOC=malloc, so
that Python's objects are among it. The stacks of threads are not.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from contextlib import ExitStack

from muxado import Config
from tests.certificates import Tls
from tests.contract.background import background
from tests.contract.conftest import FRONT_ENDS
from tests.contract.sides import Side, StreamSide
from tests.patience import patience

COUNTED = 30
DATA = bytes(1024 * 1024)
# The pings find out that a session is idle.
CONFIG = Config(ping_interval=0.5, ping_timeout=patience(60))


class Mallinfo2(ctypes.Structure):
    """What glibc tells of its memory."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def in_use() -> int:
    gc.collect()
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = Mallinfo2
    info = ask()
    return int(info.uordblks + info.hblkhd)


def pass_on(source: StreamSide, target: StreamSide) -> None:
    with background(source.write, DATA):
        left = len(DATA)
        while left:
            left -= len(target.read())


def exchange(client: Side, server: Side) -> None:
    """Send bulk each way."""
    here = client.open(eager=True)
    there = server.accept()
    pass_on(here, there)
    pass_on(there, here)
    here.close()
    there.close()


def main(front_end_name: str, scheme: str, idle: str, after_bulk: str) -> None:
    tls = Tls()
    client_tls, server_tls = (tls.client, tls.server) if scheme == "tls" else (None, None)
    front_end = FRONT_ENDS[front_end_name]()
    with front_end.run(), front_end.listen(server_tls, CONFIG) as listener, ExitStack() as stack:

        def dial(closing: ExitStack) -> tuple[Side, Side]:
            client = closing.enter_context(front_end.connect(listener.port, client_tls, CONFIG))
            server = listener.accept()
            client.ping()
            return client, server

        def tell(limit: float) -> None:
            """Print what a pair keeps, once the pings have found that it is idle."""
            end = time.monotonic() + patience(40)
            while True:
                kept = (in_use() - before) / COUNTED / 1024
                if kept <= limit or time.monotonic() > end:
                    break
                time.sleep(0.25)
            print(round(kept, 1), flush=True)

        with ExitStack() as warming:
            exchange(*dial(warming))
        before = in_use()
        pairs = [dial(stack) for _ in range(COUNTED)]
        tell(float(idle))
        for pair in pairs:
            exchange(*pair)
        tell(float(after_bulk))


if __name__ == "__main__":
    main(*sys.argv[1:])
