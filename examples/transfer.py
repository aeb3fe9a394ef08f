"""Threads: files over a session, with their progress, and Ctrl-C at any time.

    python transfer.py receive PORT FOLDER
    python transfer.py send HOST PORT FILE...
    python transfer.py                          both ends here, on loopback, and a Ctrl-C

Each file has a stream and a thread. A file appears in the folder when all of it is there; of a
transfer that breaks off nothing is left.

The main thread only waits. Where Ctrl-C hits it, no call of the session is under way, and the end
of the `with` block aborts the session: the other threads' calls raise, and so do the receiver's.
"""

import contextlib
import hashlib
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import muxado
import muxado.sync

PIECE = 64 * 1024
AT_ONCE = 4  # files


# Receiving


def receiver(folder: Path) -> Callable[[muxado.sync.Session], None]:
    """Return a session's handler that takes files into a folder."""

    def receive(stream: muxado.sync.Stream) -> None:
        with stream.makefile("rb") as file:
            about = json.loads(file.readline(4096))
            name = Path(about["name"]).name  # never a path of the peer's choosing
            digest = hashlib.sha256()
            with part_of(folder / name) as part:
                # Only the sender's end of the stream ends this loop; all else raises.
                while piece := file.read(PIECE):
                    digest.update(piece)
                    part.write(piece)
        stream.sendall(digest.digest())

    return lambda session: session.serve(receive, limit=AT_ONCE)


@contextlib.contextmanager
def part_of(path: Path) -> Iterator["tempfile._TemporaryFileWrapper[bytes]"]:
    """Give a file to write to, which gets its name when it is whole, and is removed otherwise."""
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
        try:
            yield part
        except BaseException:
            part.close()
            os.unlink(part.name)
            raise
    os.replace(part.name, path)


# Sending


def send(session: muxado.sync.Session, path: Path, count: Callable[[int], None]) -> None:
    """Send a file; return when the receiver has it."""
    digest = hashlib.sha256()
    with session.open() as stream, path.open("rb") as file:
        stream.sendall(json.dumps({"name": path.name}).encode() + b"\n")
        while piece := file.read(PIECE):
            digest.update(piece)
            stream.sendall(piece)
            count(len(piece))
        stream.write_eof()
        with stream.makefile("rb") as answer:
            if answer.read() != digest.digest():
                raise OSError(f"{path} has arrived damaged")


class Progress:
    """How many bytes have been sent, by all threads."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.sent = 0
        self._lock = threading.Lock()

    def count(self, sent: int) -> None:
        with self._lock:
            self.sent += sent

    def show(self) -> None:
        percent = 100 * self.sent // (self.total or 1)
        end = "\r" if sys.stdout.isatty() else "\n"
        print(f"{percent:3} % of {self.total / 2**20:.0f} MiB", end=end, flush=True)


def send_all(
    host: str, port: int, paths: list[Path], watch: Callable[[Progress], None] = Progress.show
) -> None:
    """Send files, several at once; `watch` is called now and then, in the main thread."""
    progress = Progress(sum(path.stat().st_size for path in paths))
    with (
        ThreadPoolExecutor(AT_ONCE) as pool,
        # Left first, so that the threads' calls end before the pool waits for the threads.
        muxado.sync.connect(host, port) as session,
    ):
        sending: set[Future[None]] = set()
        try:
            sending |= {pool.submit(send, session, path, progress.count) for path in paths}
            left = sending
            while left:
                done, left = wait(left, timeout=0.1)
                watch(progress)
                for each in done:
                    each.result()
        finally:
            for each in sending:  # those that have not begun
                each.cancel()
    print(f"{len(paths)} files sent, {progress.sent} bytes")


# The command line


def demonstrate() -> None:
    """Send files to a server in this process; then again, with a Ctrl-C in the middle."""
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name, "source"), Path(name, "target")
        source.mkdir()
        target.mkdir()
        paths = [source / f"{letter}.bin" for letter in "abcdef"]
        for path in paths:
            path.write_bytes(os.urandom(4 * 2**20))
        with muxado.sync.serve(receiver(target), "127.0.0.1", 0) as server:
            host, port = server.addresses[0][:2]
            send_all(host, port, paths)
            assert sorted(path.name for path in target.iterdir()) == [path.name for path in paths]
            for path in paths:
                assert (target / path.name).read_bytes() == path.read_bytes()
                (target / path.name).unlink()

            def interrupt(progress: Progress) -> None:
                progress.show()
                signal.raise_signal(signal.SIGINT)

            try:
                send_all(host, port, paths, interrupt)
            except KeyboardInterrupt:
                print("\ninterrupted, as by Ctrl-C")
        # The server is closed, so its handlers are done.
        left = [path.name for path in target.iterdir()]
        assert not any(path.endswith(".part") for path in left), left
        print("nothing half is left in the folder")


def main(arguments: list[str]) -> None:
    match arguments:
        case ["receive", port, folder]:
            with muxado.sync.serve(receiver(Path(folder)), port=int(port)) as server:
                server.serve_forever()
        case ["send", host, port, *names] if names:
            send_all(host, int(port), [Path(name) for name in names])
        case []:
            demonstrate()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as exc:  # a session's and a stream's errors too
        sys.exit(f"transfer: {exc}")
