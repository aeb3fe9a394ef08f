"""Connected sockets for asyncio: the first of a name's addresses that answers.

The loops have this too, but not all of them (uvloop tries one address after the other, for as
long as the system waits for each), and asyncio's own fails with eager tasks (Python 3.12.0 to
3.13.0). So the same is done here for every loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from ssl import SSLContext
from typing import Any

from .. import forks
from ..endpoint import (
    ATTEMPT_DELAY,
    CONNECT_RETRY,
    Target,
    check_timeout,
    in_turn,
    raise_failures,
    reach_path,
)
from ..errors import UsageError
from ..proxies import ProxyHandshake

# Arguments of `connect` that concern host and port, and TLS.
TCP_OPTIONS = ("family", "proto", "flags", "local_addr", "happy_eyeballs_delay")
TLS_OPTIONS = ("ssl_handshake_timeout", "ssl_shutdown_timeout")


def tls_options(kwds: dict[str, Any], context: SSLContext | None) -> dict[str, Any]:
    """Take the arguments that concern a connection's TLS out of others.

    Raises:
        UsageError: there is one without TLS, or it is no number of seconds.
    """
    options = {name: kwds.pop(name) for name in TLS_OPTIONS if name in kwds}
    options = {name: value for name, value in options.items() if value is not None}
    for name, value in options.items():
        check_timeout(value, f"{name}=")
        if context is None:
            raise UsageError(f"{name}= is for TLS: pass ssl= too")
    return options


def hang_up(sock: socket.socket) -> None:
    """End a connection both ways, and leave its socket to its owner."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


async def reach(
    target: Target,
    *,
    family: int = 0,
    proto: int = 0,
    flags: int = 0,
    local_addr: tuple[str, int] | None = None,
    happy_eyeballs_delay: float | None = ATTEMPT_DELAY,
) -> socket.socket:
    """Return a socket that is connected to where a dial is to go, through a proxy if need be.

    To a proxy that wants TLS it is merely connected, and `dial_through` takes it from there. The
    further arguments are those of the loop's `create_connection`.
    """
    if target.sock is not None:
        given: socket.socket = target.sock
        given.setblocking(False)
        return given
    if target.path is not None:
        return await _reach_path(target.path)
    loop = asyncio.get_running_loop()
    host, port = target.first_hop
    look_up = {"family": family, "type": socket.SOCK_STREAM, "proto": proto}
    try:  # an address needs no thread
        numeric = flags | socket.AI_NUMERICHOST
        found = socket.getaddrinfo(host, port, flags=numeric, **look_up)
    except socket.gaierror:
        found = await loop.getaddrinfo(host, port, flags=flags, **look_up)
    sock = await _race(target, in_turn(found), local_addr, happy_eyeballs_delay)
    if target.proxy is not None and target.proxy.context is None:
        await _ask(sock, ProxyHandshake(target.proxy, target.host, target.port))
    return sock


async def _ask(sock: socket.socket, handshake: ProxyHandshake) -> None:
    """Have a proxy connect a socket to where it is to go; close it if that fails."""
    loop = asyncio.get_running_loop()
    try:
        step = handshake.step()
        while step is not None:
            if isinstance(step, int):
                step = handshake.step(await loop.sock_recv(sock, step))
            else:
                await loop.sock_sendall(sock, step)
                step = handshake.step()
    except BaseException:
        sock.close()
        raise


async def _reach_path(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        forks.guard(sock)
        sock.setblocking(False)
        while not reach_path(sock, path):  # noqa: ASYNC110
            await asyncio.sleep(CONNECT_RETRY)
    except BaseException:
        sock.close()
        raise
    return sock


async def _race(
    target: Target,
    addresses: list[tuple[Any, ...]],
    local_addr: tuple[str, int] | None,
    delay: float | None,
) -> socket.socket:
    """Connect to the first address that answers; the next one is begun after a while."""
    if len(addresses) == 1:
        return await _attempt(addresses[0], local_addr)
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[socket.socket]] = set()
    failures: list[OSError] = []
    try:
        while addresses or tasks:
            if addresses:
                work = _attempt(addresses.pop(0), local_addr)
                tasks.add(loop.create_task(work, name="muxado connect"))
            wait = delay if addresses else None
            first = asyncio.FIRST_COMPLETED
            done, _ = await asyncio.wait(tasks, timeout=wait, return_when=first)
            for task in done:
                tasks.discard(task)
                failure = task.exception()
                if failure is None:
                    tasks |= done - {task}
                    return task.result()
                if not isinstance(failure, OSError):
                    raise failure
                failures.append(failure)
        raise_failures(failures, target)
    finally:
        for task in tasks:
            task.cancel()
            task.add_done_callback(_discard)
        del failures  # a cycle otherwise


def _discard(task: asyncio.Task[socket.socket]) -> None:
    """Close the connection of an attempt that came too late."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _attempt(address: tuple[Any, ...], local_addr: tuple[str, int] | None) -> socket.socket:
    family, kind, proto, _, place = address
    sock = socket.socket(family, kind, proto)
    try:
        forks.guard(sock)
        sock.setblocking(False)
        if local_addr is not None:
            sock.bind(local_addr)
        await asyncio.get_running_loop().sock_connect(sock, place)
    except BaseException:
        sock.close()
        raise
    return sock
