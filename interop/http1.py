"""As much HTTP/1.1 as it takes to talk to Go's net/http over a stream."""

from __future__ import annotations

from asyncio import IncompleteReadError
from typing import NamedTuple

from muxado import Stream

END = b"\r\n\r\n"
PIECE = 100_000


class Response(NamedTuple):
    """What a server has answered."""

    status: int
    headers: dict[str, str]
    body: bytes


async def ask(
    stream: Stream,
    path: str,
    body: bytes,
    *,
    chunked: bool = False,
    keep_alive: bool = False,
) -> Response:
    """POST a body and return the answer."""
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    after = "keep-alive" if keep_alive else "close"
    head = f"POST {path} HTTP/1.1\r\nHost: peer\r\nConnection: {after}\r\n{length}\r\n\r\n"
    await stream.write(head.encode())
    await write_body(stream, body, chunked)
    status_line, headers = await read_head(stream)
    return Response(int(status_line.split()[1]), headers, await read_body(stream, headers))


async def answer(stream: Stream, *, chunked: bool = False) -> None:
    """Answer requests with their own bodies, until the client has no more."""
    while True:
        try:
            _, headers = await read_head(stream)
        except IncompleteReadError as exc:
            if exc.partial:
                raise  # the client has stopped in the midst of a request
            break
        body = await read_body(stream, headers)
        length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
        await stream.write(f"HTTP/1.1 200 OK\r\n{length}\r\n\r\n".encode())
        await write_body(stream, body, chunked)
        if headers.get("connection") == "close":
            break
    stream.write_eof()


async def read_head(stream: Stream) -> tuple[str, dict[str, str]]:
    head = await stream.readuntil(END)
    first, *lines = head.removesuffix(END).decode("ascii").split("\r\n")
    fields = (line.split(":", 1) for line in lines)
    return first, {name.lower(): value.strip() for name, value in fields}


async def read_body(stream: Stream, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return await stream.readexactly(int(headers.get("content-length", 0)))
    parts = []
    while size := int(await stream.readuntil(b"\r\n"), 16):
        parts.append(await stream.readexactly(size))
        await stream.readexactly(2)
    await stream.readexactly(2)  # no trailers
    return b"".join(parts)


async def write_body(stream: Stream, body: bytes, chunked: bool) -> None:
    if not chunked:
        await stream.write(body)
        return
    for at in range(0, len(body), PIECE):
        piece = body[at : at + PIECE]
        await stream.writelines((f"{len(piece):x}\r\n".encode(), piece, b"\r\n"))
    await stream.write(b"0\r\n\r\n")
