"""Machine instructions a request, counted by valgrind: `python -m benchmarks.instructions`.

A clock on a shared machine swings by a third; this count repeats within 0.2 %. Each kind of work
is run twice, with N and with 4 N requests, and the difference is what 3 N requests take: start-up
and imports cancel out. Both runs are forked from one process, since starting Python takes longest.
A request is a stream opened, 64 bytes each way, and both ends closed; both ends live in one
process, with 64 requests at once. That of threads depends on which of them runs when, so it repeats
less well. `message` is 64 bytes each way on one stream and `block` 64 KiB one way, both in the core
alone.

`--check` compares with `instructions.json`, which holds what was counted for a build of Python and
of the core (another build of the same version may need a tenth more or less), and fails if a
request takes over 3 % more. `--record` writes there what is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from muxado.core import CoreSession, CoreStream

REQUESTS = 640
AT_ONCE = 64
PAYLOAD = bytes(64)
BLOCK = bytes(64 * 1024)
ROOT = Path(__file__).resolve().parent.parent
RECORDS = Path(__file__).with_suffix(".json")
# How much more than was recorded is let pass. Less is good, and to be recorded.
TOLERANCE = 0.03


def core_pair() -> tuple[CoreSession, CoreSession, Callable[[], None]]:
    """Return both ends of a session without a transport, and what carries all that they send."""
    from muxado import Config
    from muxado.core import CoreSession

    client = CoreSession(client=True, config=Config(), now=0.0)
    server = CoreSession(client=False, config=Config(), now=0.0)

    def carry() -> None:
        for source, target in ((client, server), (server, client)) * 2:
            while data := source.data_to_send(0.0, 64 * 1024):
                target.receive_data(data, 0.0)
                while target.paused:
                    target.resume(0.0)
                target.take_wakes()

    return client, server, carry


def stream_pair() -> tuple[CoreStream, CoreStream, Callable[[], None]]:
    """Return both ends of a stream of such a session, and what carries its bytes."""
    client, server, carry = core_pair()
    near = client.open(eager=True)
    carry()
    far = server.accept()
    assert far is not None
    return near, far, carry


def messages_in_core(count: int) -> None:
    """Send messages and their answers on one stream."""
    near, far, carry = stream_pair()
    for _ in range(count):
        near.write(PAYLOAD)
        carry()
        far.write(far.read(1024))
        carry()
        assert len(near.read(1024)) == len(PAYLOAD)


def blocks_in_core(count: int) -> None:
    """Send blocks on one stream."""
    near, far, carry = stream_pair()
    for _ in range(count):
        near.write(BLOCK)
        carry()
        while far.read(len(BLOCK)):
            pass


def in_core(count: int) -> None:
    """Do requests between two core sessions, without a transport."""
    client, server, carry = core_pair()
    for _ in range(count // AT_ONCE):
        streams = [client.open() for _ in range(AT_ONCE)]
        for stream in streams:
            stream.write(PAYLOAD)
        carry()
        while (accepted := server.accept()) is not None:
            accepted.write(accepted.read(1024))
            accepted.close()
        carry()
        for stream in streams:
            assert len(stream.read(1024)) == len(PAYLOAD)
            stream.close()
        carry()


async def on_asyncio(count: int) -> None:
    """Do requests between two sessions over a pair of sockets."""
    import muxado
    from muxado import testing

    async def echo(stream: muxado.Stream) -> None:
        await stream.write(await stream.read(1024))

    async with testing.asyncio_pair() as (client, server):
        serving = asyncio.create_task(server.serve(echo))

        async def request() -> None:
            stream = client.open()
            await stream.write(PAYLOAD)
            await stream.readexactly(len(PAYLOAD))
            stream.close()

        for _ in range(count // AT_ONCE):
            await asyncio.gather(*[request() for _ in range(AT_ONCE)])
        client.close()
        await serving


def on_uvloop(count: int) -> None:
    """Do the same on uvloop."""
    import uvloop

    uvloop.run(on_asyncio(count))


def in_threads(count: int) -> None:
    """Do the same between two sessions of threads, with a thread for each of the requests."""
    import threading

    from muxado import sync, testing

    def echo(stream: sync.Stream) -> None:
        stream.sendall(stream.recv(1024))

    with testing.sync_pair() as (client, server):
        serving = threading.Thread(target=server.serve, args=[echo])
        serving.start()

        def lane() -> None:
            for _ in range(count // AT_ONCE):
                stream = client.open()
                stream.sendall(PAYLOAD)
                assert len(stream.recv(1024)) == len(PAYLOAD)
                stream.close()

        lanes = [threading.Thread(target=lane) for _ in range(AT_ONCE)]
        for each in lanes:
            each.start()
        for each in lanes:
            each.join()
        client.close()
        serving.join()


def on_trio(count: int) -> None:
    """Do the same on trio."""
    import trio

    import muxado.trio
    from muxado import testing

    async def echo(stream: muxado.trio.Stream) -> None:
        await stream.send_all(await stream.receive_some(1024))

    async def main() -> None:
        async with testing.trio_pair() as (client, server), trio.open_nursery() as serving:
            serving.start_soon(server.serve, echo)

            async def lane() -> None:
                for _ in range(count // AT_ONCE):
                    stream = client.open()
                    await stream.send_all(PAYLOAD)
                    await stream.readexactly(len(PAYLOAD))
                    stream.close()

            async with trio.open_nursery() as nursery:
                for _ in range(AT_ONCE):
                    nursery.start_soon(lane)
            client.close()

    trio.run(main)


WORKS: dict[str, Callable[[int], None]] = {
    "core": in_core,
    "message": messages_in_core,
    "block": blocks_in_core,
    "asyncio": lambda count: asyncio.run(on_asyncio(count)),
    "uvloop": on_uvloop,
    "threads": in_threads,
    "trio": on_trio,
}


def run(work: str, count: int) -> None:
    """Do `count` requests of a kind in one child, and 4 times as many in another."""
    WORKS[work](AT_ONCE)
    for number in (count, 4 * count):
        child = os.fork()
        if not child:
            WORKS[work](number)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(f"the work failed: {status}")


def per_request(python: str, work: str, count: int) -> float:
    """Return the instructions of one request, message or block."""
    command = [
        *("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"),
        *(python, "-m", "benchmarks.instructions", "--run", work, "--requests", str(count)),
    ]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    # A child goes on counting where its parent was.
    found = [int(number) for number in re.findall(r"Collected : (\d+)", done.stderr)]
    if done.returncode or len(found) != 3:
        sys.exit(f"valgrind failed:\n{done.stderr}")
    few, many, _ = found
    return (many - few) / (3 * count)


def build_of(python: str) -> str:
    """Return the name of a build: of Python, of the core, and of the machine."""
    ask = "import sys, muxado.build; print(sys.version, muxado.build.COMPILED)"
    done = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
    *version, compiled = done.stdout.split()
    core = "compiled" if compiled == "True" else "pure"
    return f"{platform.machine()}, {core} core, Python {' '.join(version)}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.instructions",
        description="Count the machine instructions of a request; needs valgrind.",
    )
    parser.add_argument("--python", default=sys.executable, help="the interpreter to measure")
    parser.add_argument("--requests", type=int, default=REQUESTS, help=f"N ({REQUESTS})")
    parser.add_argument("--only", choices=list(WORKS), action="append", help="this kind of work")
    parser.add_argument("--check", action="store_true", help="fail if one takes more than recorded")
    parser.add_argument("--record", action="store_true", help="write down what is counted")
    parser.add_argument("--run", choices=list(WORKS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run(options.run, options.requests)
        return
    if shutil.which("valgrind") is None:
        if options.check:
            print("the instructions of a request are not counted: there is no valgrind")
            return
        sys.exit("valgrind is needed: a package of that name has it")
    records = json.loads(RECORDS.read_text())
    build = build_of(options.python)
    recorded = records.setdefault(build, {})
    if options.check and not recorded:
        print("the instructions of a request are not counted: none are recorded for this Python")
        return
    worse = []
    for work in options.only or WORKS:
        if options.check and work not in recorded:
            continue
        counted = round(per_request(options.python, work, options.requests))
        line = f"{work:8} {counted:10,}"
        if work in recorded:
            change = counted / recorded[work] - 1
            line += f"   {change:+.1%} against what is recorded"
            if change > TOLERANCE:
                worse.append(work)
        print(line, flush=True)
        if options.record:
            recorded[work] = counted
    if options.record:
        RECORDS.write_text(json.dumps(records, indent=2, sort_keys=True) + "\n")
    if options.check and worse:
        sys.exit(f"a request takes over 3 % more instructions: {', '.join(worse)}")


if __name__ == "__main__":
    main()
