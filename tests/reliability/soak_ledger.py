"""The soak's bookkeeping: what each stream carries, and that all of it is accounted for."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, field

# What a stream carries depends on its key alone, so that the receiving end knows every byte.
SIZE = 1_000_003
MOST_PIECE = 70_000
_BLOCK = random.Random(0).randbytes(SIZE)
BLOCK = _BLOCK + _BLOCK[:MOST_PIECE]


def piece(key: int, offset: int, count: int) -> bytes:
    """Return `count` bytes of what the stream with this key carries."""
    start = (key * 7919 + offset) % SIZE
    return BLOCK[start : start + count]


@dataclass
class Entry:
    """What one end knows of one stream.

    Attributes:
        sent: bytes that `write` has accepted.
        finished: FIN was asked for after them.
        received: bytes that were read, each of them right.
        ended: the peer's FIN was read after them.
        done: everything went as planned.
        excused: it was planned to end early, or was given up.
        wrong: the first byte that was not what it should be, -1 if all were.
    """

    sent: int = 0
    finished: bool = False
    received: int = 0
    ended: bool = False
    done: bool = False
    excused: bool = False
    wrong: int = -1


Entries = dict[int, Entry]


def packed(entries: Entries) -> dict[str, dict[str, object]]:
    """Return entries as JSON can have them."""
    return {str(key): asdict(entry) for key, entry in entries.items()}


def unpacked(data: dict[str, dict[str, object]]) -> Entries:
    """Undo `packed`."""
    return {int(key): Entry(**values) for key, values in data.items()}  # type: ignore[arg-type]


@dataclass
class Totals:
    """What has been accounted for."""

    streams: int = 0
    done: int = 0
    cut_short: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    wrong: list[str] = field(default_factory=list)

    def balance(self, ours: Entries, theirs: Entries, *, orderly: bool) -> None:
        """Compare what both ends know of the same streams, and note what doesn't agree.

        After an orderly end nothing may have been cut short but what was to be.
        """
        for key in ours.keys() | theirs.keys():
            # The accepting end may never have heard of a stream that was cut short.
            here, there = ours.get(key, Entry()), theirs.get(key, Entry())
            self.streams += 1
            self.done += here.done and there.done
            self.cut_short += not (here.done and there.done)
            if orderly and not (here.done and there.done) and not (here.excused or there.excused):
                self.wrong.append(f"stream {key:#x}: cut short by no fault")
            for sender, receiver in ((here, there), (there, here)):
                self.bytes_sent += sender.sent
                self.bytes_received += receiver.received
                if receiver.wrong >= 0:
                    self.wrong.append(f"stream {key:#x}: byte {receiver.wrong} is wrong")
                if receiver.received > sender.sent:
                    self.wrong.append(f"stream {key:#x}: more came than was sent")
                whole = sender.finished and receiver.received == sender.sent
                if receiver.ended and not whole:
                    self.wrong.append(f"stream {key:#x}: the end came early")
                if receiver.done and not receiver.ended:
                    self.wrong.append(f"stream {key:#x}: done without an end")
