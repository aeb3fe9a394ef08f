"""Threads that one read has woken go on one after the other; none holds up the others."""

from __future__ import annotations

import socket
import threading
from typing import BinaryIO

import pytest

import muxado.sync
from muxado.wire import MUXADO_V2
from tests.patience import patience


def opening(stream_id: int, payload: bytes) -> bytes:
    """Return the frame that opens a stream, with all that it will bring."""
    return MUXADO_V2.encoder.data_header(stream_id, len(payload), True, True) + payload


def answers(incoming: BinaryIO, count: int) -> set[int]:
    """Return the streams of the next so many DATA frames that bring something."""
    found: set[int] = set()
    while len(found) < count:
        header = incoming.read(8)
        body = incoming.read(int.from_bytes(header[:3], "big"))
        if header[3] >> 4 == 1 and body:
            found.add(int.from_bytes(header[4:], "big"))
    return found


@pytest.mark.parametrize("waiting", [{0}, {7}, {1, 3, 5, 7}, set(range(7))])
def test_handlers_that_wait_for_something_else_hold_up_no_answer(waiting: set[int]) -> None:
    here, peer = socket.socketpair()
    answered = threading.Event()

    def handler(stream: muxado.sync.Stream) -> None:
        if stream.recv(100) == b"wait":
            assert answered.wait(patience(30))
        stream.sendall(b"answer")

    ids = [3 + 2 * number for number in range(8)]
    late = {ids[number] for number in waiting}
    incoming = peer.makefile("rb")
    with peer, incoming, muxado.sync.server(here) as session:
        peer.settimeout(patience(30))
        serving = threading.Thread(target=session.serve, args=[handler], daemon=True)
        serving.start()
        for _ in range(2):  # the second time there are threads that wait for work
            peer.sendall(
                b"".join(opening(each, b"wait" if each in late else b"now") for each in ids)
            )
            assert answers(incoming, len(ids) - len(late)) == set(ids) - late
            answered.set()
            assert answers(incoming, len(late)) == late
            answered.clear()
            ids = [each + 16 for each in ids]
            late = {each + 16 for each in late}
        session.abort()
        serving.join()
