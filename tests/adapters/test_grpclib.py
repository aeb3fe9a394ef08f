"""gRPC over streams, by grpclib."""

from __future__ import annotations

import asyncio
from typing import Any

import grpclib.client
import grpclib.server
import pytest
from google.protobuf.wrappers_pb2 import Int64Value
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

import muxado.testing
from muxado.adapters.grpclib import Channel, serve

from .conftest import Ends

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("default::DeprecationWarning")]


class Squares:
    """A service without generated code: one call with one answer, one with many."""

    async def square(self, stream: grpclib.server.Stream[Any, Any]) -> None:
        request = await stream.recv_message()
        assert request is not None
        if request.value < 0:
            raise GRPCError(Status.INVALID_ARGUMENT, "too small")
        await stream.send_message(Int64Value(value=request.value**2))

    async def count(self, stream: grpclib.server.Stream[Any, Any]) -> None:
        async for request in stream:
            await stream.send_message(Int64Value(value=request.value + 1))

    def __mapping__(self) -> dict[str, Handler]:
        return {
            "/Squares/Square": Handler(
                self.square, Cardinality.UNARY_UNARY, Int64Value, Int64Value
            ),
            "/Squares/Count": Handler(
                self.count, Cardinality.STREAM_STREAM, Int64Value, Int64Value
            ),
        }


async def test_calls(ends: Ends) -> None:
    server = grpclib.server.Server([Squares()])
    serving = asyncio.get_running_loop().create_task(serve(server, ends.serving))
    channel = Channel(ends.calling)
    square: Any = grpclib.client.UnaryUnaryMethod(
        channel, "/Squares/Square", Int64Value, Int64Value
    )
    count: Any = grpclib.client.StreamStreamMethod(
        channel, "/Squares/Count", Int64Value, Int64Value
    )
    answers = await asyncio.gather(*[square(Int64Value(value=n)) for n in range(50)])
    assert [answer.value for answer in answers] == [n**2 for n in range(50)]
    answers = await count([Int64Value(value=n) for n in range(5)])
    assert [answer.value for answer in answers] == [1, 2, 3, 4, 5]
    with pytest.raises(GRPCError, match="too small"):
        await square(Int64Value(value=-1))
    assert ends.calling.stats().streams_opened == 1
    channel.close()
    serving.cancel()
    await asyncio.wait([serving])


async def test_the_servers_own_close_ends_it_on_every_session(ends: Ends) -> None:
    server = grpclib.server.Server([Squares()])
    async with muxado.testing.asyncio_pair() as (calling, second):
        serving = [asyncio.ensure_future(serve(server, s)) for s in (ends.serving, second)]
        for session in (ends.calling, calling):
            channel = Channel(session)
            count: Any = grpclib.client.StreamStreamMethod(
                channel, "/Squares/Count", Int64Value, Int64Value
            )
            assert len(await count([Int64Value(value=1)])) == 1
            channel.close()
        server.close()
        server.close()  # harmless
        await server.wait_closed()
        await asyncio.gather(*serving)
        with pytest.raises(RuntimeError, match="closed"):
            await serve(server, second)
        assert not second.closed


async def test_a_server_that_listens_is_not_run_over_a_session(ends: Ends) -> None:
    server = grpclib.server.Server([Squares()])
    await server.start("127.0.0.1", 0)
    with pytest.raises(RuntimeError, match="listens"):
        await serve(server, ends.serving)
    server.close()
    await server.wait_closed()


# Draining


@pytest.mark.parametrize("side", ["calling", "serving"])
async def test_a_connection_without_calls_ends_when_the_session_drains(
    ends: Ends, side: str
) -> None:
    serving = asyncio.ensure_future(serve(grpclib.server.Server([Squares()]), ends.serving))
    channel = Channel(ends.calling)
    square: Any = grpclib.client.UnaryUnaryMethod(
        channel, "/Squares/Square", Int64Value, Int64Value
    )
    assert (await square(Int64Value(value=3))).value == 9
    session: muxado.Session = getattr(ends, side)
    await session.shutdown(timeout=None)
    reason = session.close_reason
    assert reason is not None
    assert reason.clean
    await serving
    channel.close()


@pytest.mark.parametrize("side", ["calling", "serving"])
async def test_a_call_that_runs_is_not_cut_when_the_session_drains(ends: Ends, side: str) -> None:
    serving = asyncio.ensure_future(serve(grpclib.server.Server([Squares()]), ends.serving))
    channel = Channel(ends.calling)
    count: Any = grpclib.client.StreamStreamMethod(
        channel, "/Squares/Count", Int64Value, Int64Value
    )
    session: muxado.Session = getattr(ends, side)
    async with count.open() as stream:
        await stream.send_message(Int64Value(value=1))
        assert (await stream.recv_message()).value == 2
        ending = asyncio.ensure_future(session.shutdown(timeout=None))
        told = asyncio.Event()
        ends.calling.on_draining(told.set)
        await told.wait()
        await stream.send_message(Int64Value(value=2), end=True)
        assert [message.value async for message in stream] == [3]
    await ending
    reason = session.close_reason
    assert reason is not None
    assert reason.clean
    await serving
    channel.close()
