"""The HTTP clients of Python, as one: requests over streams towards Go's server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from io import BytesIO
from typing import Any, NamedTuple, Protocol, TypeVar

import aiohttp
import httpx
import requests
from tests.patience import patience

import muxado.sync
from muxado import Session
from muxado.adapters.aiohttp import Connector
from muxado.adapters.httpx import AsyncTransport, Transport
from muxado.adapters.requests import Adapter

from .helpers import MIB

T = TypeVar("T", bound=BaseException)

# Seconds that a step of a request may take before it counts as hanging.
STEP = patience(20)
URL = "http://peer"
MOST = 1000  # requests at once
KEPT = 20  # idle connections, httpx's own default: its pool is slow with many


class Answer(NamedTuple):
    """What a server has answered."""

    status: int
    headers: dict[str, str]
    body: bytes


class Ask(Protocol):
    """Makes a request: a GET, or a POST if there is a body."""

    async def __call__(
        self, path: str, body: bytes | None = None, *, chunked: bool = False
    ) -> Answer: ...


def answer(response: httpx.Response | requests.Response) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, response.content)


def pieces(body: bytes) -> Iterator[bytes]:
    """Cut a body so that a library can't know its length, and sends it in chunks."""
    for at in range(0, len(body), 100_000):
        yield body[at : at + 100_000]


async def async_pieces(body: bytes) -> AsyncIterator[bytes]:
    for piece in pieces(body):
        yield piece


@asynccontextmanager
async def by_httpx(session: Session) -> AsyncIterator[Ask]:
    limits = httpx.Limits(max_connections=MOST, max_keepalive_connections=KEPT)
    transport = AsyncTransport(session, limits=limits)

    async def ask(path: str, body: bytes | None = None, *, chunked: bool = False) -> Answer:
        if body is None:
            return answer(await http.get(URL + path))
        content = async_pieces(body) if chunked else body
        return answer(await http.post(URL + path, content=content))

    async with httpx.AsyncClient(transport=transport, timeout=STEP) as http:
        yield ask


@asynccontextmanager
async def by_aiohttp(session: Session) -> AsyncIterator[Ask]:
    async def ask(path: str, body: bytes | None = None, *, chunked: bool = False) -> Answer:
        data: Any = None
        if body is not None:
            data = async_pieces(body) if chunked else BytesIO(body)  # large bytes draw a warning
        method = "GET" if body is None else "POST"
        async with http.request(method, URL + path, data=data) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, headers, await response.read())

    connector = Connector(session, limit=MOST)
    timeout = aiohttp.ClientTimeout(sock_read=STEP)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, read_bufsize=MIB
    ) as http:
        yield ask


@asynccontextmanager
async def by_httpx_in_threads(session: muxado.sync.Session) -> AsyncIterator[Ask]:
    limits = httpx.Limits(max_connections=MOST, max_keepalive_connections=KEPT)
    with httpx.Client(transport=Transport(session, limits=limits), timeout=STEP) as http:

        def ask(path: str, body: bytes | None, chunked: bool) -> Answer:
            if body is None:
                return answer(http.get(URL + path))
            return answer(http.post(URL + path, content=pieces(body) if chunked else body))

        with ThreadPoolExecutor(MOST) as threads:
            yield in_threads(threads, ask)


@asynccontextmanager
async def by_requests(session: muxado.sync.Session) -> AsyncIterator[Ask]:
    with requests.Session() as http:
        http.mount("http://", Adapter(session, pool_maxsize=MOST))

        def ask(path: str, body: bytes | None, chunked: bool) -> Answer:
            if body is None:
                return answer(http.get(URL + path, timeout=STEP))
            data = pieces(body) if chunked else body
            return answer(http.post(URL + path, data=data, timeout=STEP))

        with ThreadPoolExecutor(MOST) as threads:
            yield in_threads(threads, ask)


def in_threads(threads: ThreadPoolExecutor, ask: Callable[..., Answer]) -> Ask:
    """Let a test ask, without waiting itself, what blocks a thread."""

    async def asked(path: str, body: bytes | None = None, *, chunked: bool = False) -> Answer:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(threads, ask, path, body, chunked)

    return asked


# By name, and those that use a session of `muxado.sync`.
CLIENTS: dict[str, Callable[[Any], AbstractAsyncContextManager[Ask]]] = {
    "httpx": by_httpx,
    "aiohttp": by_aiohttp,
    "httpx-sync": by_httpx_in_threads,
    "requests": by_requests,
}
THREADED = {"httpx-sync", "requests"}


def cause(exc: BaseException | None, kind: type[T]) -> T | None:
    """Return the error of this kind that a library's error comes from."""
    while exc is not None and not isinstance(exc, kind):
        exc = exc.__cause__ or exc.__context__
    return exc
