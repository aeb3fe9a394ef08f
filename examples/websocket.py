"""A websocket through a stream, from threads, by the websockets library."""

import threading
from typing import Any

from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

import muxado.sync
from muxado.adapters.websockets import ListeningSocket


def shout(connection: ServerConnection) -> None:
    for message in connection:
        assert isinstance(message, str)
        connection.send(message.upper())


with (
    muxado.sync.listen("127.0.0.1", 0) as listener,
    muxado.sync.connect(*listener.addresses[0]) as near,
    listener.accept(timeout=5) as far,
):
    listening: Any = ListeningSocket(far)
    with serve(shout, sock=listening) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with connect("ws://service/", sock=near.open().to_socket()) as websocket:
            websocket.send("a websocket in a stream")
            answer = websocket.recv(timeout=5)
            print(answer)
        server.shutdown()
        thread.join()

assert answer == "A WEBSOCKET IN A STREAM"
