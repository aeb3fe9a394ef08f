"""`muxado expose`, `forward`, `socks` and `run`; `stdio`, which is one connection."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import ssl
import stat
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click

from ..asyncio import relay
from ..asyncio.stdio import open_pipes, open_reader, open_writer
from ..cluster.names import is_name
from ..errors import MuxadoError, UsageError
from ..extras import needs
from ..tunnel import Client, ClientState, Exposed, Forward, Invitation, Known
from ..tunnel.forwarding import REFUSALS
from ..tunnel.invitations import format_place
from ..tunnel.jobs import Exposing, Jobs, Listening, Plan, parse_forward, parse_listen, read_plan
from ..tunnel.messages import SOCKS, check_service, right_for
from ..tunnel.operating import shown
from .loop import run_in_best_loop

with needs("tunnel"):
    from platformdirs import user_data_path

__all__ = ["expose", "forward", "run", "socks", "stdio"]

# Exit statuses. 2 is click's, for what can't be asked for.
FAILED = 1
REFUSED = 3

logger: logging.Logger = logging.getLogger("muxado.tunnel")

T = TypeVar("T")

Read = Callable[[], Plan]


def expose(what: str, allowed: tuple[str, ...], shown: dict[str, Any], **options: Any) -> int:
    """Expose a service until a signal comes; return the exit status."""
    name, equals, target = what.partition("=")
    if not equals:
        name, target = "", what
    exposing = Exposing.parse(name, target, allowed, **shown)
    return _do(lambda: Plan(exposing=(exposing,)), **options)


def forward(what: str, **options: Any) -> int:
    """Listen until a signal comes; return the exit status."""
    listening = parse_forward(what)
    return _do(lambda: Plan(listening=(listening,)), **options)


def socks(listen: str, **options: Any) -> int:
    """Listen for SOCKS until a signal comes; return the exit status."""
    listening = parse_listen(listen, SOCKS)
    return _do(lambda: Plan(listening=(listening,)), **options)


def run(file: Path, **options: Any) -> int:
    """Do what a file says until a signal comes; return the exit status."""
    return _do(lambda: read_plan(file), reload=True, **options)


def stdio(place: str, *, timeout: float, to: str | None, state: Path | None) -> int:
    """Connect the standard input and output to a place; return the exit status."""
    service = check_service(place)
    if to == "-":
        raise UsageError(
            "the standard input is the connection's: give the invitation as an argument of --to, or"
            " have `muxado forward` take it first"
        )
    known, kept = _find(to, state)
    _log()
    return run_in_best_loop(
        _until_signal(_connect(Client(known, kept, once=True), service, timeout))
    )


def _find(to: str | None, folder: Path | None) -> tuple[Known, ClientState]:
    state = ClientState(folder or user_data_path("muxado", appauthor=False) / "client")
    if to == "-":
        if sys.stdin.isatty():
            to = click.prompt("invitation", hide_input=True)
        else:
            to = sys.stdin.readline()
    if to is not None and "://" in to:
        return state.accept(Invitation.parse(to)), state
    return state.find(to), state


def _log() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logger.setLevel(logging.INFO)  # what has come back, too
    logging.getLogger("muxado.dialer").setLevel(logging.ERROR)  # the client says it


async def _until_signal(work: Coroutine[Any, Any, int]) -> int:
    """Do something until a signal comes; return the exit status."""
    task = asyncio.create_task(work)
    if sys.platform != "win32":
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        return 0


# Jobs that last


def _do(
    read: Read,
    *,
    as_json: bool,
    once: bool,
    timeout: float,
    to: str | None,
    state: Path | None,
    reload: bool = False,
) -> int:
    plan = read()
    known, kept = _find(to or plan.server, state)
    _log()
    patience = timeout if once else None
    return run_in_best_loop(
        _until_signal(_stay(known, kept, plan, read if reload else None, as_json, patience))
    )


async def _stay(
    known: Known,
    state: ClientState,
    plan: Plan,
    reread: Read | None,
    as_json: bool,
    patience: float | None,
) -> int:
    """Do what the plan says; with patience for some seconds only, until that is not to be had.

    Raises:
        OSError: the server was out of reach for longer, or a port can't be listened on.
    """
    once = patience is not None
    told = Told(known.invitation.places[0][0], as_json)
    refused = asyncio.Event()

    def answered(exposed: Exposed) -> None:
        if exposed.error is None:
            told.exposed(exposed)
        elif once:
            refused.set()

    async with (
        Client(known, state, once=once, on_answer=answered) as client,
        shown(client, state.folder),
    ):
        jobs = Jobs(client)
        try:
            await _in_time(client, client.connected(), patience)
            for listening, opened in await jobs.begin(plan):
                told.listening(listening, opened)
                lacking = client.lacks(listening.service)
                if lacking:
                    logger.warning(
                        "%s leads to nothing: the server gives this client no right %s; %s",
                        listening,
                        lacking,
                        client.remedy(lacking),
                    )
                    if once:
                        return REFUSED
            tasks = [
                asyncio.create_task(refused.wait()),
                asyncio.create_task(_last(client, patience)),
            ]
            if reread is not None and hasattr(signal, "SIGHUP"):
                tasks.append(asyncio.create_task(_reread(jobs, reread, told)))
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
        except UsageError:
            raise
        except (MuxadoError, ssl.SSLCertVerificationError) as exc:
            click.echo(f"muxado: {exc}", err=True)
        return REFUSED


async def _last(client: Client, patience: float | None) -> None:
    """Wait for the final error of a client, which is raised."""
    while True:
        session = await _in_time(client, client.connected(), patience)
        await session.wait_closed()


async def _in_time(client: Client, wanted: Awaitable[T], timeout: float | None) -> T:
    """Wait for what needs a session.

    Raises:
        OSError: there is none in time.
    """
    try:
        async with asyncio.timeout(timeout):
            return await wanted
    except TimeoutError:
        raise OSError(f"the server can't be reached: {client.trouble}") from None


async def _reread(jobs: Jobs, reread: Read, told: Told) -> None:
    """Read the plan again at each SIGHUP."""
    wanted = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, wanted.set)
    while True:
        await wanted.wait()
        wanted.clear()
        try:
            for listening, opened in await jobs.change(reread()):
                told.listening(listening, opened)
        except UsageError as exc:
            logger.error("what is to be done is as it was: %s", exc)
        except OSError as exc:
            logger.error("%s; all else is done", exc)
        else:
            logger.info("the file was read again, and is done")


class Told:
    """Says on the standard output what there is: a line for each, or a line of JSON."""

    def __init__(self, host: str, as_json: bool) -> None:
        self._host = host
        self._as_json = as_json

    def exposed(self, exposed: Exposed) -> None:
        """Say where a service is."""
        target = str(exposed.target)
        shown = {"service": exposed.service, "target": target}
        if not exposed.port:
            self._say(f"private {exposed.service}  ->  {target}", shown | {"private": True})
            return
        place = format_place((self._host, exposed.port))
        self._say(f"tcp {place}  ->  {target}", shown | {"host": self._host, "port": exposed.port})

    def listening(self, listening: Listening, opened: Forward) -> None:
        """Say what listens."""
        address = format_place(opened.address)
        shown: dict[str, object] = {"address": address, "service": listening.what}
        self._say(f"{address}  ->  {listening.what}", shown)

    def _say(self, line: str, shown: dict[str, object]) -> None:
        click.echo(json.dumps(shown) if self._as_json else line)


# One connection


async def _connect(client: Client, service: str, timeout: float) -> int:
    async with client:
        try:
            stream = await _in_time(client, client.open(service), timeout)
        except (MuxadoError, ssl.SSLCertVerificationError) as exc:
            click.echo(f"muxado: {exc}", err=True)
            return REFUSED
        result = await relay(stream, await _open_stdio())
        if result.ended == "end":
            return 0
        if result.code in REFUSALS and not result.from_stream:
            told = REFUSALS[result.code]
            if result.code == 403:
                told += f"; {client.remedy(right_for(service))}"
            host, colon, _ = service.rpartition(":")
            if colon and is_name(host):
                told += f"; if another client offers {host}, ask for it without a port"
            click.echo(f"muxado: {service}: {told}", err=True)
        else:
            click.echo(f"muxado: {service}: the connection was cut", err=True)
        return FAILED


async def _open_stdio() -> tuple[Any, Any]:
    """Return a reader and a writer over the standard input and output."""
    files = [_is_file(number) for number in (0, 1)]
    if not any(files):
        return await open_pipes(os.dup(0), os.dup(1))
    reader: Any = File(0) if files[0] else (await open_reader(os.dup(0)))[0]
    writer: Any = File(1) if files[1] else await open_writer(os.fdopen(os.dup(1), "wb", 0))
    return reader, writer


def _is_file(number: int) -> bool:
    """Return whether a descriptor is one of those that are always ready: a file, /dev/null."""
    mode = os.fstat(number).st_mode
    return not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(number))


class File:
    """A file that is always ready, as a reader and a writer."""

    def __init__(self, number: int) -> None:
        self._number = number

    async def read(self, n: int) -> bytes:
        """Return what comes next."""
        return os.read(self._number, n)

    def write(self, data: bytes) -> None:
        """Write all of it."""
        while data:
            data = data[os.write(self._number, data) :]

    async def drain(self) -> None:
        """Do nothing: it is written."""

    def close(self) -> None:
        """Do nothing: the process ends."""
