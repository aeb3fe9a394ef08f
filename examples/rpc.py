"""Calls over one connection: with deadlines, streamed results, retries, and reconnecting.

A call is a stream. The request goes out as one message; each result comes back as one, and the
stream's end is the end of the results. A caller that gives up resets its stream, which cancels the
function that runs for it. The client stays connected while its server is restarted.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import muxado
from muxado.framing import receive_message, send_message

Function = Callable[..., AsyncIterator[Any]]


# The server's side


async def answer(functions: dict[str, Function], stream: muxado.Stream) -> None:
    """Answer one call: ``[name, arguments]``, with ``[result]`` for each result, or an error."""
    request = await receive_message(stream)
    if request is None:
        return
    name, arguments = json.loads(request)
    try:
        async for result in functions[name](*arguments):
            await send_message(stream, json.dumps([result]).encode())
    except (LookupError, TypeError, ValueError) as exc:
        await send_message(stream, json.dumps({"error": str(exc)}).encode())


def serve(functions: dict[str, Function], host: str, port: int) -> Awaitable[muxado.Server]:
    return muxado.serve_streams(partial(answer, functions), host, port, cancel_on_reset=True)


# The client's side


class CallFailed(Exception):
    """The function has raised."""


class Client:
    """Calls functions of a server."""

    def __init__(self, dialer: muxado.Dialer) -> None:
        self._dialer = dialer

    async def call(
        self, name: str, *arguments: Any, deadline: float = 5.0, again: bool = False
    ) -> Any:
        """Call a function that gives one result.

        Args:
            name: the function's name.
            arguments: its arguments.
            deadline: seconds for all of it, the wait for a connection and the retries too.
            again: call it again when the connection was lost meanwhile, though it may have run.
        """

        async def one(stream: muxado.Stream) -> Any:
            return await anext(results(stream, name, arguments))

        async with asyncio.timeout(deadline):
            while True:
                try:
                    return await self._dialer.call(one)  # repeats what the server never saw
                except muxado.SessionError:
                    if not again:
                        raise

    async def stream(self, name: str, *arguments: Any) -> AsyncIterator[Any]:
        """Call a function, and yield its results as they come."""
        async with await self._dialer.open() as stream:
            async for result in results(stream, name, arguments):
                yield result


async def results(
    stream: muxado.Stream, name: str, arguments: tuple[Any, ...]
) -> AsyncIterator[Any]:
    await send_message(stream, json.dumps([name, arguments]).encode())
    while (message := await receive_message(stream)) is not None:
        match json.loads(message):
            case [result]:
                yield result
            case {"error": error}:
                raise CallFailed(error)


# Both


async def add(first: int, second: int) -> AsyncIterator[int]:
    yield first + second


async def count(most: int) -> AsyncIterator[int]:
    for number in range(most):
        yield number


async def sleep(seconds: float) -> AsyncIterator[str]:
    try:
        await asyncio.sleep(seconds)
        yield "slept well"
    except asyncio.CancelledError:
        print("the server's function was cancelled")
        raise


async def main() -> None:
    functions: dict[str, Function] = {"add": add, "count": count, "sleep": sleep}
    server = await serve(functions, "127.0.0.1", 0)
    host, port = server.addresses[0]
    async with muxado.Dialer(host, port) as dialer:
        client = Client(dialer)
        print("add:", await client.call("add", 20, 22))
        print("at once:", await asyncio.gather(*[client.call("add", n, n) for n in range(5)]))
        print("streamed:", [number async for number in client.stream("count", 5)])
        try:
            await client.call("add", 1)
        except CallFailed as error:
            print("failed:", error)
        try:
            await client.call("sleep", 60, deadline=0.1)
        except TimeoutError:
            print("the deadline has passed")

        sleeping = asyncio.create_task(client.call("sleep", 0.3))
        await asyncio.sleep(0.1)
        await server.shutdown()  # it lets the call that runs come to its end
        print("over a shutdown:", await sleeping)
        calling = asyncio.create_task(client.call("add", 1, 1))  # it waits for a server
        server = await serve(functions, host, port)
        print("after a restart:", await calling)

        sleeping = asyncio.create_task(client.call("sleep", 0.2, again=True))
        await asyncio.sleep(0.1)
        server.sessions[0].abort()  # the connection is lost
        print("over a crash:", await sleeping)
    await server.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
