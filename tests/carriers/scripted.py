"""Proxies that say what a test wants."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def scripted(
    answer: Callable[[socket.socket], None], at: str = "http://127.0.0.1"
) -> Iterator[str]:
    """Run what answers one connection; give its URL, which begins with `at`."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            connection, _ = listening.accept()
            with connection:
                answer(connection)

        thread = threading.Thread(target=run)
        thread.start()
        yield f"{at}:{listening.getsockname()[1]}"
        thread.join()
