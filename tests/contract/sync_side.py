"""The front end for threads, as the contract suite uses it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from muxado import CloseReason, Config, ErrorCode, SessionStats, sync

from .background import echo
from .sides import PATIENCE, FrontEnd, ListenerSide, Side, StreamSide


class SyncStream(StreamSide):
    def __init__(self, stream: sync.Stream) -> None:
        self.stream = stream
        self.id = stream.id
        self.type = stream.type

    def read(self, n: int = 65536, timeout: float = PATIENCE) -> bytes:
        self.stream.settimeout(timeout)
        return self.stream.recv(n)

    def write(self, data: bytes, timeout: float = PATIENCE) -> None:
        self.stream.settimeout(timeout)
        self.stream.sendall(data)

    def write_eof(self) -> None:
        self.stream.write_eof()

    def close(self) -> None:
        self.stream.close()

    def reset(self, code: int = ErrorCode.STREAM_CANCELLED) -> None:
        self.stream.reset(code)

    def wait_reset(self) -> int | None:
        return self.stream.wait_reset(PATIENCE)

    def read_nowait(self, n: int, callback: Callable[[], object] | None = None) -> bytes | None:
        return self.stream.read_nowait(n, callback)

    def write_nowait(self, data: bytes, callback: Callable[[], object] | None = None) -> bool:
        return self.stream.write_nowait(data, callback)

    def on_end(self, callback: Callable[[], object]) -> None:
        self.stream.on_end(callback)


class SyncSide(Side):
    def __init__(self, session: sync.Session) -> None:
        super().__init__()
        self.session = session

    def _open(self, type: int | None, priority: int, eager: bool) -> StreamSide:
        return SyncStream(self.session.open(type=type, priority=priority, eager=eager))

    def _accept(self, timeout: float) -> StreamSide:
        return SyncStream(self.session.accept(timeout))

    def iterate(self) -> list[int]:
        ids = []
        for stream in self.session:
            ids.append(stream.id)
            stream.close()
        return ids

    def serve(self, handler: Callable[[StreamSide], None], limit: int | None = None) -> None:
        self.session.serve(lambda stream: handler(SyncStream(stream)), limit=limit)

    def ping(self) -> float:
        return self.session.ping(PATIENCE)

    def go_away(self, code: int = 0, debug: bytes = b"") -> None:
        self.session.go_away(code, debug)

    def on_draining(self, callback: Callable[[], object]) -> None:
        self.session.on_draining(callback)

    def on_stream(self, callback: Callable[[sync.Stream], object] | None) -> None:
        self.session.on_stream(callback)

    def shutdown(self, timeout: float | None = PATIENCE) -> None:
        self.session.shutdown(timeout)

    def close(self) -> None:
        self.session.close()

    def wait_closed(self) -> CloseReason:
        return self.session.wait_closed(PATIENCE)

    def abort(self, code: int = 2) -> None:
        self.session.abort(code)

    def stats(self) -> SessionStats:
        return self.session.stats()

    @property
    def config(self) -> Config:
        return self.session.config

    @property
    def closed(self) -> bool:
        return self.session.closed

    @property
    def close_reason(self) -> CloseReason | None:
        return self.session.close_reason


class SyncListener(ListenerSide):
    def __init__(self, listener: sync.Listener) -> None:
        self.listener = listener
        self.port = listener.addresses[0][1]

    def accept(self) -> Side:
        return SyncSide(self.listener.accept(PATIENCE))


class SyncFrontEnd(FrontEnd):
    name = "sync"

    @contextmanager
    def connect(self, port: int, tls: ssl.SSLContext | None, config: Config) -> Iterator[Side]:
        with sync.connect("127.0.0.1", port, ssl=tls, config=config, timeout=PATIENCE) as session:
            yield SyncSide(session)

    @contextmanager
    def listen(
        self, tls: ssl.SSLContext | None, config: Config, sock: socket.socket | None = None
    ) -> Iterator[ListenerSide]:
        host, port = ("127.0.0.1", 0) if sock is None else (None, None)
        with sync.listen(host, port, sock=sock, ssl=tls, config=config) as listener:
            yield SyncListener(listener)

    @contextmanager
    def serve(self, tls: ssl.SSLContext | None) -> Iterator[int]:
        def handle(session: sync.Session) -> None:
            session.serve(lambda stream: echo(SyncStream(stream)))

        with sync.serve(handle, "127.0.0.1", 0, ssl=tls) as server:
            yield server.addresses[0][1]

    def run(self) -> AbstractContextManager[object]:
        return nullcontext()
