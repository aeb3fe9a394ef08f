"""Counts what a call costs in places to look: `python tools/trips.py`, with the pure core.

For some everyday trips through `muxado.core` and `muxado.wire` it says how many functions are
called, in how many files they stand, and how many of the calls cross from one file to another.
A trip that stays in one file can be understood by reading that file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import muxado
from muxado import Config
from muxado.build import COMPILED
from muxado.core import CoreSession

LIBRARY = Path(muxado.__file__).parent
COUNTED = (str(LIBRARY / "core"), str(LIBRARY / "wire"))
LIMIT = 64 * 1024


class Trip:
    """The calls within the core and the wire format while this is the profile function.

    Attributes:
        calls: how many functions were called.
        hops: how many of them by a function of another file.
        files: where they stand.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.hops = 0
        self.files: dict[str, None] = {}
        self.path: list[str] = []

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(COUNTED):
            return
        self.calls += 1
        name = Path(code.co_filename).name
        self.files[name] = None
        self.path.append(f"{name}:{code.co_name}")
        caller = frame.f_back
        if caller is not None and caller.f_code.co_filename.startswith(COUNTED):
            self.hops += caller.f_code.co_filename != code.co_filename


def follow(step: Callable[[], object]) -> Trip:
    """Take a step and return what it called."""
    trip = Trip()
    sys.setprofile(trip)
    try:
        step()
    finally:
        sys.setprofile(None)
    return trip


class Ends:
    """Two core sessions with one stream between them, on which each has said something."""

    def __init__(self) -> None:
        self.client = CoreSession(client=True, config=Config(), now=0.0)
        self.server = CoreSession(client=False, config=Config(), now=0.0)
        self.near = self.client.open()
        self.near.write(b"hello")
        self.carry()
        accepted = self.server.accept()
        assert accepted is not None
        self.far = accepted
        self.far.write(self.far.read(5))
        self.carry()
        self.near.read(5)
        self.carry()

    def carry(self) -> None:
        """Let each end have what the other has to send."""
        for source, target in ((self.client, self.server), (self.server, self.client)) * 2:
            while data := source.data_to_send(0.0, LIMIT):
                target.receive_data(data, 0.0)

    def finish(self) -> None:
        """Close the stream at both ends."""
        self.near.close()
        self.far.close()
        self.carry()

    def fill(self) -> None:
        """Send so much that a read of it grants credit."""
        self.near.write(bytes(192 * 1024))
        self.carry()


def write() -> Trip:
    ends = Ends()
    return follow(lambda: ends.near.write(bytes(64)))


def receive() -> Trip:
    ends = Ends()
    ends.near.write(bytes(64))
    data = ends.client.data_to_send(0.0, LIMIT)
    ends.server.receive_buffer()[: len(data)] = data
    return follow(lambda: ends.server.bytes_received(len(data), 0.0))


def read_and_grant() -> Trip:
    ends = Ends()
    ends.fill()
    return follow(lambda: ends.far.read(192 * 1024))


def send_grant() -> Trip:
    ends = Ends()
    ends.fill()
    ends.far.read(192 * 1024)
    return follow(lambda: ends.server.data_to_send(0.0, LIMIT))


def close() -> Trip:
    ends = Ends()
    ends.finish()
    return follow(lambda: ends.client.close(0.0))


def send_last_goaway() -> Trip:
    ends = Ends()
    ends.finish()
    ends.client.close(0.0)
    return follow(lambda: ends.client.data_to_send(0.0, LIMIT))


TRIPS: dict[str, Callable[[], Trip]] = {
    "stream.write(64 B)": write,
    "one DATA frame in": receive,
    "read that grants credit": read_and_grant,
    "data_to_send of that grant": send_grant,
    "close()": close,
    "data_to_send of the last GOAWAY": send_last_goaway,
}


def main() -> None:
    if COMPILED:
        sys.exit("tools/trips.py counts calls of the pure core; this one is compiled")
    verbose = "-v" in sys.argv[1:]
    print("| trip | calls | files | hops between files |\n| --- | --- | --- | --- |")
    for name, take in TRIPS.items():
        trip = take()
        print(f"| {name} | {trip.calls} | {len(trip.files)} | {trip.hops} |")
        if verbose:
            print("\n".join(f"    {place}" for place in trip.path))


if __name__ == "__main__":
    main()
