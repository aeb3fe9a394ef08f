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
