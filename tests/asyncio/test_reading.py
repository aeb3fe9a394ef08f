"""What the reads of a stream return, raise and leave behind."""

from __future__ import annotations

import asyncio
import random
from array import array

import pytest

import muxado

from ..fixtures import NewPair
from ..helpers import cancel, opened, running
from ..transports import Connect, Ends, over_tcp

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


@pytest.fixture
def transport() -> Connect:
    """One will do: what is read doesn't depend on it."""
    return over_tcp


async def test_read_returns_what_is_there(session_pair: Ends) -> None:
    async with opened(*session_pair) as (stream, other):
        await stream.write(b"abcdef")
        assert await other.read(4) == b"abcd"
        assert await other.read(0) == b""
        assert await other.read(4) == b"ef"
        stream.write_eof()
        assert await other.read(4) == b""
        assert await other.read(4) == b""
        assert await other.read() == b""


async def test_read_without_a_number_goes_on_to_the_end(new_pair: NewPair) -> None:
    async with opened(*await new_pair(initial_window=65536)) as (stream, other):
        data = random.Random(4).randbytes(MIB)
        async with running(other.read()) as reading:
            await stream.write(data)
            stream.write_eof()
            assert await reading == data


@pytest.mark.parametrize("window", [64 * 1024, 256 * 1024])
async def test_readexactly_may_ask_for_more_than_the_window(new_pair: NewPair, window: int) -> None:
    ends = await new_pair(initial_window=window, max_window=window)
    async with opened(*ends) as (stream, other):
        data = random.Random(5).randbytes(4 * MIB + 1)
        async with running(stream.write(data)):
            assert await other.readexactly(4 * MIB) == data[:-1]
            assert await other.readexactly(1) == data[-1:]
            assert await other.readexactly(0) == b""
    assert ends.server.stats().memory_held == 0


async def test_readexactly_tells_what_came_instead(session_pair: Ends) -> None:
    async with opened(*session_pair) as (stream, other):
        await stream.write(b"abc")
        stream.write_eof()
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await other.readexactly(5)
        assert (caught.value.partial, caught.value.expected) == (b"abc", 5)
        with pytest.raises(ValueError, match="less than zero"):
            await other.readexactly(-1)
        assert other.at_eof()


async def test_readuntil_takes_the_separator_too(session_pair: Ends) -> None:
    async with opened(*session_pair) as (stream, other):
        async with running(other.readuntil(b"--")) as reading:
            for piece in (b"a-b-", b"c", b"-", b"-d--", b"rest"):
                await stream.write(piece)
                await session_pair.client.ping()  # each piece comes alone
            assert await reading == b"a-b-c--"
        assert await other.readuntil(b"--") == b"d--"
        stream.write_eof()
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await other.readuntil(b"--")
        assert (caught.value.partial, caught.value.expected) == (b"rest", None)
        with pytest.raises(ValueError, match="Separator"):
            await other.readuntil(b"")


async def test_readuntil_keeps_to_the_limit(new_pair: NewPair) -> None:
    async with opened(*await new_pair(read_limit=10)) as (stream, other):
        await stream.write(b"0123456789\n")
        assert await other.readuntil(b"\n") == b"0123456789\n"

        await stream.write(b"0123456789a\n")
        with pytest.raises(asyncio.LimitOverrunError) as caught:
            await other.readuntil(b"\n")
        assert caught.value.consumed == 11
        assert await other.readexactly(12) == b"0123456789a\n"

        await stream.write(b"0123456789abc")
        with pytest.raises(asyncio.LimitOverrunError) as caught:
            await other.readuntil(b"--")
        assert await other.readexactly(caught.value.consumed) == b"0123456789ab"
        assert await other.readexactly(1) == b"c"


async def test_readuntil_finds_a_separator_beyond_the_window(new_pair: NewPair) -> None:
    ends = await new_pair(initial_window=1000, max_window=1000, read_limit=100_000)
    async with opened(*ends) as (stream, other):
        line = b"x" * 50_000 + b"\n"
        async with running(stream.write(line + b"y")):
            assert await other.readline() == line
            assert await other.read(10) == b"y"


async def test_readline_returns_lines_and_what_is_left(session_pair: Ends) -> None:
    async with opened(*session_pair) as (stream, other):
        await stream.write(b"one\n\nthr")
        assert await other.readline() == b"one\n"
        assert await other.readline() == b"\n"
        async with running(other.readline()) as reading:
            await stream.write(b"ee\nrest")
            assert await reading == b"three\n"
        stream.write_eof()
        assert await other.readline() == b"rest"
        assert await other.readline() == b""


async def test_readline_drops_a_line_that_is_too_long(new_pair: NewPair) -> None:
    async with opened(*await new_pair(read_limit=10)) as (stream, other):
        await stream.write(b"0123456789abc\nnext\n")
        with pytest.raises(ValueError, match="limit"):
            await other.readline()
        assert await other.readline() == b"next\n"
        await stream.write(b"0123456789abc")
        with pytest.raises(ValueError, match="limit"):
            await other.readline()
        await stream.write(b"tail\n")
        assert await other.readline() == b"tail\n"


async def test_iteration_gives_lines(session_pair: Ends) -> None:
    async with opened(*session_pair) as (stream, other):
        await stream.write(b"one\ntwo\nthree")
        stream.write_eof()
        assert [line async for line in other] == [b"one\n", b"two\n", b"three"]


async def test_readinto_fills_what_it_is_given(session_pair: Ends) -> None:
    async with opened(*session_pair) as (stream, other):
        await stream.write(b"abcdefgh")
        buffer = bytearray(3)
        assert await other.readinto(buffer) == 3
        assert buffer == b"abc"
        numbers = array("H", [0, 0, 0, 0])
        assert await other.readinto(memoryview(numbers)) == 5
        assert numbers.tobytes() == b"defgh\0\0\0"
        assert await other.readinto(bytearray()) == 0
        await stream.write(b"kept")
        with pytest.raises(TypeError):
            await other.readinto(memoryview(b"read-only"))
        assert await other.readinto(buffer) == 3
        assert buffer == b"kep"
        assert await other.read(1) == b"t"
        stream.write_eof()
        assert await other.readinto(buffer) == 0
        assert buffer == b"kep"


async def test_at_eof_is_true_once_all_was_read(session_pair: Ends) -> None:
    async with opened(*session_pair) as (stream, other):
        await stream.write(b"a")
        stream.write_eof()
        await session_pair.client.ping()
        assert not other.at_eof()
        assert await other.read(1) == b"a"
        assert other.at_eof()
        assert not stream.at_eof()


@pytest.mark.parametrize("call", ["read()", "readexactly(200_000)", "readline()", "read(10)"])
async def test_a_cancelled_read_loses_nothing(new_pair: NewPair, call: str) -> None:
    ends = await new_pair(initial_window=10_000, max_window=10_000, read_limit=500_000)
    async with opened(*ends) as (stream, other):
        data = random.Random(6).randbytes(100_000).replace(b"\n", b"\t")
        reads = {
            "read()": lambda: other.read(),
            "readexactly(200_000)": lambda: other.readexactly(200_000),
            "readline()": lambda: other.readline(),
            "read(10)": lambda: other.read(10),
        }
        async with running(reads[call]()) as reading:
            await ends.client.ping()
            if call == "read(10)":
                await cancel(reading)
                await stream.write(data)
            else:
                # The reader pays for much more than the window, then gives up.
                await stream.write(data)
                while ends.server.stats().bytes_received < 50_000:
                    await ends.client.ping()
                await cancel(reading)
        stream.write_eof()
        arrived = b""
        while piece := await other.read(3000):
            arrived += piece
        assert arrived == data
    assert ends.server.stats().memory_held == 0


async def test_a_read_that_times_out_loses_nothing(session_pair: Ends) -> None:
    async with opened(*session_pair) as (stream, other):
        await stream.write(b"abc")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await other.readexactly(4)
        await stream.write(b"d")
        assert await other.readexactly(4) == b"abcd"


async def test_only_one_task_may_read(session_pair: Ends) -> None:
    async with opened(*session_pair) as (stream, other):
        async with running(other.read(100)) as reading:
            await session_pair.client.ping()
            for second in (
                other.read(1),
                other.read(),
                other.readexactly(1),
                other.readline(),
                other.readuntil(b"x"),
                other.readinto(bytearray(1)),
            ):
                with pytest.raises(muxado.StreamBusy):
                    await second
            await stream.write(b"for the first")
            assert await reading == b"for the first"
        await stream.write(b"for the next")
        assert await other.read(100) == b"for the next"


async def test_one_task_reads_while_another_writes(session_pair: Ends) -> None:
    async with opened(*session_pair) as (stream, other), running(other.read(100)) as reading:
        await session_pair.client.ping()
        await other.write(b"meanwhile")
        assert await stream.read(100) == b"meanwhile"
        await stream.write(b"now")
        assert await reading == b"now"


async def test_a_reset_comes_after_the_data_before_it(session_pair: Ends) -> None:
    async with opened(*session_pair) as (stream, other):
        await stream.write(b"before")
        await session_pair.client.ping()
        stream.reset(8)
        await other.wait_reset()
        with pytest.raises(muxado.StreamReset):
            await other.readexactly(7)
        assert await other.read(4) == b"befo"
        assert await other.readexactly(2) == b"re"
        for _ in range(2):
            with pytest.raises(muxado.StreamReset) as caught:
                await other.read(4)
            assert caught.value.code == 8


async def test_the_end_of_the_session_comes_after_the_data_before_it(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (stream, other):
        await stream.write(b"before")
        await client.ping()
        client.abort(7)
        await server.wait_closed()
        assert await other.read(100) == b"before"
        with pytest.raises(muxado.SessionAborted) as caught:
            await other.read(100)
        assert caught.value.code == 7


async def test_an_end_that_has_come_stays_clean_whatever_follows(session_pair: Ends) -> None:
    client, server = session_pair
    async with opened(client, server) as (first, one), opened(client, server) as (second, two):
        for stream in (first, second):
            await stream.write(b"all of it")
            stream.write_eof()
        await client.ping()
        first.reset()
        assert await one.wait_reset() is not None
        assert await one.read() == b"all of it"
        client.abort(7)
        await server.wait_closed()
        assert await two.read() == b"all of it"
        assert await two.read(1) == b""
        assert two.at_eof()


@pytest.mark.parametrize("finished", [False, True])
async def test_reads_fail_after_our_own_close(session_pair: Ends, finished: bool) -> None:
    async with opened(*session_pair) as (stream, other):
        await stream.write(b"abc\n")
        if finished:
            stream.write_eof()
        await session_pair.client.ping()
        other.close()
        for call in (
            other.read(1),
            other.read(),
            other.readexactly(1),
            other.readline(),
            other.readuntil(b"x"),
            other.readinto(bytearray(1)),
        ):
            with pytest.raises(muxado.StreamClosed):
                await call


@pytest.mark.parametrize("how", ["close", "reset"])
async def test_our_own_end_wakes_a_reader(session_pair: Ends, how: str) -> None:
    async with opened(*session_pair) as (_, other), running(other.read(1)) as reading:
        await session_pair.client.ping()
        if how == "close":
            other.close()
        else:
            other.reset()
        with pytest.raises(muxado.StreamClosed if how == "close" else muxado.StreamReset):
            await reading
