"""What is left after a cancelled call of a dialer: one that works, or is closed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from muxado.trio import Dialer, Stream

from .cancelled_places import CONFIG, served
from .cancelling import Cut, Scenario, Scenarios, Security, echo

DIALERS = Scenarios()

Call = Callable[[Dialer], Awaitable[object]]


async def ask(stream: Stream) -> bytes:
    await stream.send_all(b"hello")
    await stream.send_eof()
    return b"".join([data async for data in stream])


def new_dialer(security: Security, address: tuple[str, int]) -> Dialer:
    return Dialer(*address, ssl=security.client, config=CONFIG)


# Using


def using(call: Call) -> Scenario:
    """Cut a call that may wait for the first session: the next call works."""

    async def scenario(security: Security, cut: Cut) -> None:
        async with (
            served(security) as server,
            new_dialer(security, server.addresses[0]) as dialer,
        ):
            await cut(lambda: call(dialer))
            assert await dialer.call(ask) == b"hello"

    return scenario


async def open_one(dialer: Dialer) -> None:
    async with await dialer.open():
        pass


DIALERS["Dialer.session"] = using(lambda dialer: dialer.session())
DIALERS["Dialer.open"] = using(open_one)
DIALERS["Dialer.call"] = using(lambda dialer: dialer.call(ask))
DIALERS["AsyncSessions.__anext__"] = using(lambda dialer: aiter(dialer).__anext__())


@DIALERS.of("Dialer.serve")
async def serve(security: Security, cut: Cut) -> None:
    async with (
        served(security) as server,
        new_dialer(security, server.addresses[0]) as dialer,
    ):

        async def serve() -> None:
            await dialer.session()
            trio.lowlevel.current_trio_token().run_sync_soon(dialer.close)
            await dialer.serve(echo)

        await cut(serve)
        if cut.hit and not cut.turns:
            assert await dialer.call(ask) == b"hello"


# The end


def ending(call: Call) -> Scenario:
    """Cut the end of a dialer: afterwards it ends, with its session."""

    async def scenario(security: Security, cut: Cut) -> None:
        async with (
            served(security) as server,
            new_dialer(security, server.addresses[0]) as dialer,
        ):
            session = await dialer.session()
            assert await dialer.call(ask) == b"hello"
            await cut(lambda: call(dialer))
            dialer.close()
            await dialer.wait_closed()
            assert session.closed

    return scenario


async def waits(dialer: Dialer) -> None:
    dialer.close()
    await dialer.wait_closed()


DIALERS["Dialer.wait_closed"] = ending(waits)
DIALERS["Dialer.shutdown"] = ending(lambda dialer: dialer.shutdown(2.0))


def block(*, leave: bool) -> Scenario:
    """Cut a dialer's block, where it begins or where it ends: nothing of it is left."""

    async def scenario(security: Security, cut: Cut) -> None:
        async with served(security) as server:
            leaving = trio.Event()

            async def use() -> None:
                async with new_dialer(security, server.addresses[0]) as dialer:
                    if leave:
                        assert await dialer.call(ask) == b"hello"
                    leaving.set()

            await cut(use, leaving if leave else None)

    return scenario


DIALERS["Dialer.__aenter__"] = block(leave=False)
DIALERS["Dialer.__aexit__"] = block(leave=True)
