"""What is left after a cancelled call of a dialer: one that works, or is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from muxado import Dialer, Stream

from ..helpers import echo, exchange
from .cancelled_places import CONFIG, served
from .cancelling import Cut, Scenario, Scenarios, Stage

DIALERS = Scenarios()

Call = Callable[[Dialer], Coroutine[Any, Any, object]]


async def ask(stream: Stream) -> bytes:
    return await exchange(stream, b"hello")


def new_dialer(stage: Stage, address: tuple[str, int]) -> Dialer:
    return Dialer(*address, ssl=stage.tls.client if stage.secure else None, config=CONFIG)


# Using


def using(call: Call) -> Scenario:
    """Cut a call that may wait for the first session: the next call works."""

    async def scenario(stage: Stage, cut: Cut) -> None:
        async with served(stage) as (_, address), new_dialer(stage, address) as dialer:
            await cut(call(dialer))
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
async def serve(stage: Stage, cut: Cut) -> None:
    async with served(stage) as (_, address), new_dialer(stage, address) as dialer:

        async def serve() -> None:
            await dialer.session()
            asyncio.get_running_loop().call_soon(dialer.close)
            await dialer.serve(echo)

        await cut(serve())
        if cut.hit and not cut.turns:
            assert await dialer.call(ask) == b"hello"


# The end


def ending(call: Call) -> Scenario:
    """Cut the end of a dialer: afterwards it ends, with its session."""

    async def scenario(stage: Stage, cut: Cut) -> None:
        async with served(stage) as (_, address), new_dialer(stage, address) as dialer:
            session = await dialer.session()
            assert await dialer.call(ask) == b"hello"
            await cut(call(dialer))
            dialer.close()
            await dialer.wait_closed()
            assert session.closed

    return scenario


async def waits(dialer: Dialer) -> None:
    dialer.close()
    await dialer.wait_closed()


DIALERS["Dialer.wait_closed"] = ending(waits)
DIALERS["Dialer.shutdown"] = ending(lambda dialer: dialer.shutdown(2.0))
DIALERS["Dialer.__aexit__"] = ending(lambda dialer: dialer.__aexit__(None, None, None))


@DIALERS.of("Dialer.__aenter__")
async def enter(stage: Stage, cut: Cut) -> None:
    async with served(stage) as (_, address):
        dialer = new_dialer(stage, address)
        if await cut(dialer.__aenter__()) is not None:
            assert await dialer.call(ask) == b"hello"
            await dialer.__aexit__(None, None, None)
