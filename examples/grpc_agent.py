"""gRPC, by grpclib: a server behind NAT connects to its client, which calls it back over that."""

import asyncio
from typing import Any

import grpclib.client
import grpclib.server
from google.protobuf.wrappers_pb2 import Int64Value
from grpclib.const import Cardinality, Handler

import muxado
from muxado.adapters.grpclib import Channel, serve


class Squares:
    """What the generated code's base class would give, by hand."""

    async def square(self, stream: grpclib.server.Stream[Any, Any]) -> None:
        request = await stream.recv_message()
        assert request is not None
        await stream.send_message(Int64Value(value=request.value**2))

    def __mapping__(self) -> dict[str, Handler]:
        handler = Handler(self.square, Cardinality.UNARY_UNARY, Int64Value, Int64Value)
        return {"/Squares/Square": handler}


async def agent(host: str, port: int) -> None:
    async with muxado.connect(host, port) as session:
        await serve(grpclib.server.Server([Squares()]), session)


async def main() -> None:
    async with muxado.listen("127.0.0.1", 0) as gateway, asyncio.TaskGroup() as group:
        group.create_task(agent(*gateway.addresses[0]))
        async with await gateway.accept() as session, Channel(session) as channel:
            square: Any = grpclib.client.UnaryUnaryMethod(
                channel, "/Squares/Square", Int64Value, Int64Value
            )
            answer = await square(Int64Value(value=12))
            print(f"12 squared is {answer.value}")
            assert answer.value == 144


asyncio.run(main())
