"""examples/muxado_v1.py in place of either end of a conversation that was recorded from Go."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from muxado.wire.codec import DATA, GO_AWAY
from muxado.wire.muxado_v1 import MUXADO_V1
from tests.frames import FrameReader, read_frames
from tests.golden import transcript

pytestmark = pytest.mark.anyio

PROGRAM = Path(__file__).parents[2] / "examples" / "muxado_v1.py"
RECORDED = transcript("typed-priority-streams", "v1")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("muxado_v1_example", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def opened(reader: FrameReader) -> list[tuple[int, int, int]]:
    """Return id, type and priority of the streams that were opened."""
    return [(f.stream_id, f.type, f.priority) for f in reader.frames if f.kind == DATA and f.syn]


def said(reader: FrameReader) -> dict[int, bytes]:
    """Return the payload on each stream, without pings."""
    payload: dict[int, bytes] = {}
    for frame in reader.frames:
        if frame.kind == DATA and frame.length:
            payload[frame.stream_id] = payload.get(frame.stream_id, b"") + frame.body
    return payload


def go_said(direction: str) -> FrameReader:
    reader = FrameReader(MUXADO_V1)
    reader.feed(b"".join(RECORDED.parts(direction)))
    return reader


async def test_its_client_says_what_that_of_go_said(program: ModuleType) -> None:
    heard = FrameReader(MUXADO_V1)

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        turns = iter(RECORDED.turns("server_to_client"))
        answered = 0
        while data := await reader.read(65536):
            heard.feed(data)
            while answered < len(said(heard)):  # a request has come
                answered += 1
                writer.write(next(turns))
            if heard.frames[-1].kind == GO_AWAY:
                writer.write(b"".join(turns))
                writer.write_eof()
        writer.close()

    async with await asyncio.start_server(play, "127.0.0.1", 0) as server:
        answers = await program.client(*server.sockets[0].getsockname())
    assert answers == [f"{kind:08x}:data".encode() for kind, _ in program.JOBS]
    recorded = go_said("client_to_server")
    assert opened(heard) == opened(recorded)
    assert said(heard) == said(recorded)


async def test_its_server_answers_what_that_of_go_answered(
    program: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    async with program.server(0) as server:
        reader, writer = await asyncio.open_connection(*server.addresses[0])
        requests, heard = FrameReader(MUXADO_V1), FrameReader(MUXADO_V1)
        for turn in RECORDED.turns("client_to_server"):
            writer.write(turn)
            requests.feed(turn)
            while len(said(heard)) < len(said(requests)):
                heard.feed(await reader.read(65536))
        writer.write_eof()
        heard.feed(await reader.read())
        writer.close()
    assert said(heard) == said(go_said("server_to_client"))
    seen = [f"type {kind:#x}, priority {priority}" for kind, priority in program.JOBS]
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(seen)


def test_the_jobs_are_those_that_were_recorded(program: ModuleType) -> None:
    frames = read_frames(RECORDED.parts("client_to_server"), MUXADO_V1)
    syns = [(frame.type, frame.priority) for frame in frames if frame.kind == DATA and frame.syn]
    assert syns == program.JOBS
