"""A wire that can't refuse: what there is no room for waits in the transport; nothing is lost."""

from __future__ import annotations

import random
from typing import Any

import pytest

import muxado
from tests.certificates import Tls

from .background import background
from .conftest import FRONT_ENDS, SCHEMES, Place
from .sides import PATIENCE, FrontEnd, Side, StreamSide

KIB = 1024
STREAMS = 30
PIECES = [random.Random(number).randbytes(20 * KIB) for number in range(STREAMS)]


@pytest.fixture(params=[(name, scheme) for name in FRONT_ENDS for scheme in SCHEMES], ids="-".join)
def holder(request: pytest.FixtureRequest, front_ends: dict[str, FrontEnd], tls: Tls) -> Place:
    """Where the server's front end is the one that holds back."""
    name, scheme = request.param
    contexts = (tls.client, tls.server) if scheme == "tls" else (None, None)
    return Place(front_ends[name], front_ends[name], *contexts)


def say(client: Side) -> None:
    """Open more streams than wait for `accept`, with more than the memory holds."""
    for number in range(STREAMS):
        stream = client.open()
        stream.write(PIECES[number])
        stream.write_eof()


def test_more_than_there_is_room_for_arrives_in_time(holder: Place) -> None:
    room: dict[str, Any] = {"accept_backlog": 4, "max_receive_memory": 50 * KIB}
    with holder.connected(wire="smux-v2", close_timeout=PATIENCE, **room) as (client, server):
        say(client)
        # asyncio's TLS has no half-close, and smux nothing that tells that all has arrived.
        early = holder.client_tls is None or holder.client.name != "asyncio"
        if early:
            client.close()  # the end comes behind all of it
        arrived: dict[int, bytes] = {}

        def take(stream: StreamSide) -> None:
            arrived[stream.id] = stream.read_all()
            if len(arrived) == STREAMS and not early:
                client.close()

        server.serve(take)
        assert [arrived[stream_id] for stream_id in sorted(arrived)] == PIECES
        client.wait_closed()
        server.wait_closed()
        for side in (client, server):
            reason = side.close_reason
            assert reason is not None
            assert reason.clean
        assert server.stats().refusals == 0


def test_streams_of_both_sides_go_on_once_there_is_room(holder: Place) -> None:
    room: dict[str, Any] = {"max_incoming_streams": 3, "max_receive_memory": 50 * KIB}
    with holder.connected(wire="smux-v2", **room) as (client, server):

        def serve() -> None:
            for _ in range(STREAMS):
                stream = server.accept()
                stream.write(stream.read_all())
                stream.close()

        with background(serve) as serving:
            for number in range(STREAMS):
                stream = client.open()
                assert stream.exchange(PIECES[number]) == PIECES[number]
                stream.close()
            serving.result(PATIENCE)


def test_a_session_can_be_ended_while_its_peer_is_held_back(holder: Place) -> None:
    with holder.connected(wire="smux-v2", accept_backlog=1) as (client, server):
        say(client)
        server.accept()
        server.close()
        server.wait_closed()
        with pytest.raises(muxado.SessionError):
            client.accept()


def test_a_server_for_any_wire_holds_back_as_well(holder: Place) -> None:
    server_config: dict[str, Any] = {"wire": "auto", "accept_backlog": 1}
    with holder.connected(server_config, wire="smux-v2") as (client, server):
        say(client)
        for number in range(STREAMS):
            assert server.accept().read_all() == PIECES[number]
        assert server.stats().refusals == 0
