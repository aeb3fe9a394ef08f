"""Sessions over commands, from both sides, in every front end; with a real SSH server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

import muxado
import muxado.sync
import muxado.trio
from muxado import CommandEnded, Config, UsageError
from tests.patience import patience
from tests.servers import SshServer, ssh_server

CHILD = str(Path(__file__).with_name("stdio_child.py"))
RELAY = str(Path(__file__).with_name("stdio_relay.py"))
ROOT = Path(__file__).parents[2]
SOURCE = str(Path(muxado.__file__).parents[1])

pytestmark = pytest.mark.skipif(os.name != "posix", reason="commands need Unix sockets")


def child(front_end: str, *more: str) -> list[str]:
    return [sys.executable, CHILD, front_end, *more]


# One way to use each front end: ask some questions, each on a stream of its own, and return the
# answers with the reason of the session's end; a session that is lost gives no more answers.


def on_asyncio(questions: list[bytes], **kwds: Any) -> tuple[list[bytes], muxado.CloseReason]:
    async def main() -> tuple[list[bytes], muxado.CloseReason]:
        answers = []
        async with asyncio.timeout(patience(30)), muxado.connect(**kwds) as session:
            try:
                for question in questions:
                    async with session.open() as stream:
                        await stream.write(question)
                        stream.write_eof()
                        answers.append(await stream.read())
                session.close()
            except muxado.MuxadoError:
                pass
            return answers, await session.wait_closed()

    return asyncio.run(main())


def in_threads(questions: list[bytes], **kwds: Any) -> tuple[list[bytes], muxado.CloseReason]:
    answers = []
    with muxado.sync.connect(**kwds) as session:
        try:
            for question in questions:
                with session.open() as stream:
                    stream.sendall(question)
                    stream.write_eof()
                    pieces = []
                    while data := stream.recv(65536):
                        pieces.append(data)
                    answers.append(b"".join(pieces))
            session.close()
        except muxado.MuxadoError:
            pass
        return answers, session.wait_closed()


def on_trio(questions: list[bytes], **kwds: Any) -> tuple[list[bytes], muxado.CloseReason]:
    async def main() -> tuple[list[bytes], muxado.CloseReason]:
        answers = []
        with trio.fail_after(patience(30)):
            async with muxado.trio.connect(**kwds) as session:
                try:
                    for question in questions:
                        async with session.open() as stream:
                            await stream.send_all(question)
                            await stream.send_eof()
                            pieces = []
                            while data := await stream.receive_some(65536):
                                pieces.append(data)
                            answers.append(b"".join(pieces))
                    session.close()
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
                return answers, await session.wait_closed()

    return trio.run(main)


Ask = Callable[..., tuple[list[bytes], muxado.CloseReason]]
FRONT_ENDS = {"asyncio": on_asyncio, "sync": in_threads, "trio": on_trio}


@pytest.fixture(params=FRONT_ENDS)
def front_end(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def ask(front_end: str) -> Ask:
    return FRONT_ENDS[front_end]


def wait_until_gone(pid: bytes) -> None:
    """Wait until a process is neither there nor a zombie."""
    deadline = time.monotonic() + patience(10)
    while True:
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return
        assert time.monotonic() < deadline, "the process is still there"
        time.sleep(0.01)


def test_a_command_is_asked_and_leaves_no_zombie(ask: Ask, front_end: str) -> None:
    large = bytes(1_000_000)
    (small, back, pid), reason = ask([b"hello", large, b"pid"], command=child(front_end))
    assert (small, back) == (b"HELLO", large)
    assert reason.clean
    wait_until_gone(pid)


def test_a_command_with_two_pipes_is_asked(ask: Ask, front_end: str) -> None:
    line = f"cat | {sys.executable} {CHILD} {front_end} | cat"
    large = bytes(1_000_000)
    answers, reason = ask([b"hello", large], command=["sh", "-c", line])
    assert answers == [b"HELLO", large]
    assert reason.clean


def test_what_the_program_and_its_children_print_goes_to_standard_error(
    ask: Ask, front_end: str, capfd: pytest.CaptureFixture[str]
) -> None:
    answers, _ = ask([b"noise"], command=child(front_end))
    assert answers == [b"NOISE"]
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err == "printed noise\nnoise of a child\n"


@pytest.mark.parametrize(("order", "status"), [(b"exit 3", 3), (b"die", -9)])
def test_the_exit_status_is_in_the_error(
    ask: Ask, front_end: str, order: bytes, status: int
) -> None:
    answers, reason = ask([b"hello", order, b"again"], command=child(front_end))
    assert answers == [b"HELLO"]
    assert isinstance(reason.exception, CommandEnded)
    assert reason.exception.returncode == status
    assert not reason.clean


def test_a_command_that_fails_at_once(ask: Ask) -> None:
    answers, reason = ask([b"hello"], command=["sh", "-c", "exit 7"])
    assert answers == []
    assert isinstance(reason.exception, CommandEnded)
    assert reason.exception.returncode == 7
    assert "exit status 7" in str(reason.exception)


def test_a_command_that_prints_first(ask: Ask, front_end: str) -> None:
    line = f"echo Welcome to this machine, which has been up for 12 days; exec {sys.executable} "
    answers, reason = ask([b"hello"], command=["sh", "-c", f"{line} {CHILD} {front_end}"])
    assert answers == []
    assert not reason.clean
    assert "Welcome" in reason.message


def test_a_program_that_is_not_there(ask: Ask) -> None:
    with pytest.raises(FileNotFoundError):
        ask([], command=["/not/there"])


def test_a_command_that_does_not_end_is_killed(ask: Ask, front_end: str) -> None:
    config = Config(close_timeout=0.2)
    began = time.monotonic()
    answers, _ = ask([b"pid"], command=child(front_end, "linger"), config=config)
    assert time.monotonic() - began < patience(10)
    wait_until_gone(answers[0])


def test_a_command_that_reads_nothing_is_left_in_bounded_time(front_end: str) -> None:
    config = Config(close_timeout=0.2, initial_window=65536, write_high_water=65536)
    began = time.monotonic()

    async def main() -> None:
        async with muxado.connect(command=["sleep", "1000"], config=config) as session:
            stream = session.open()
            await stream.write(bytes(10_000_000))  # is taken whole, and more is not
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(stream.write(b"more"), 0.2)
            session.abort()
            await session.wait_closed()

    asyncio.run(main())
    assert time.monotonic() - began < patience(10)


def test_bytes_may_come_one_at_a_time(ask: Ask, socket_path: str) -> None:
    def handle(stream: muxado.sync.Stream) -> None:
        stream.sendall(stream.recv(65536).upper())

    with muxado.sync.serve_streams(handle, path=socket_path):
        command = [sys.executable, RELAY, socket_path, "1"]
        answers, reason = ask([b"hello", b"you"], command=command)
    assert answers == [b"HELLO", b"YOU"]
    assert reason.clean


def test_a_dialer_starts_the_command_again() -> None:
    async def ask(session: muxado.Session, question: bytes) -> bytes:
        async with session.open() as stream:
            await stream.write(question)
            stream.write_eof()
            return await stream.read()

    async def main() -> None:
        command = child("asyncio")
        async with (
            asyncio.timeout(patience(30)),
            muxado.Dialer(
                dial=lambda: muxado.connect(command=command), backoff=muxado.Backoff(most=0.1)
            ) as dialer,
        ):
            first = await dialer.session()
            pids = {await ask(first, b"pid")}
            with pytest.raises(muxado.MuxadoError):
                await ask(first, b"die")
            assert isinstance((await first.wait_closed()).exception, CommandEnded)
            pids.add(await ask(await dialer.session(), b"pid"))
            assert len(pids) == 2

    asyncio.run(main())


# Mistakes


@pytest.mark.parametrize(
    ("kwds", "said"),
    [
        ({"command": "ssh host"}, "must be a list"),
        ({"command": []}, "must be a list"),
        ({"command": [1]}, "list of strings"),
        ({"command": ["a\0b"]}, "can't be run"),
        ({"command": [""]}, "can't be run"),
        ({"command": ["true"], "path": "a"}, "or command="),
        ({"command": ["true"], "host": "a", "port": 1}, "or command="),
        ({"command": ["true"], "ssl": True}, "ssl= is not for command="),
        ({"command": ["true"], "proxy": "env"}, "proxy= is for host and port"),
    ],
)
def test_a_command_that_cannot_be_is_refused_at_once(
    front_end: str, kwds: dict[str, Any], said: str
) -> None:
    connect: Any = {"asyncio": muxado, "sync": muxado.sync, "trio": muxado.trio}[front_end].connect
    with pytest.raises(UsageError, match=said):
        connect(**kwds)


def test_serving_on_what_is_no_pipe_is_an_error(front_end: str) -> None:
    ended = subprocess.run(
        child(front_end), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert ended.returncode == 1
    assert "the standard input is no pipe" in ended.stderr


# SSH


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with ssh_server(tmp_path_factory.mktemp("ssh")) as server:
        yield server


def test_a_program_is_reached_over_ssh(ask: Ask, front_end: str, ssh: SshServer) -> None:
    program = f"PYTHONPATH={SOURCE} {sys.executable} {CHILD} {front_end}"
    large = bytes(1_000_000)
    answers, reason = ask([b"hello", large], command=ssh.command(program))
    assert answers == [b"HELLO", large]
    assert reason.clean


def test_ssh_tells_how_the_program_has_ended(ask: Ask, front_end: str, ssh: SshServer) -> None:
    program = f"PYTHONPATH={SOURCE} {sys.executable} {CHILD} {front_end}"
    _, reason = ask([b"exit 4"], command=ssh.command(program))
    assert isinstance(reason.exception, CommandEnded)
    assert reason.exception.returncode == 4


def test_ssh_refuses_a_host_whose_key_is_another(ask: Ask, ssh: SshServer) -> None:
    _, reason = ask([b"hello"], command=ssh.command("true", "-o", "UserKnownHostsFile=/dev/null"))
    assert isinstance(reason.exception, CommandEnded)
    assert reason.exception.returncode == 255
