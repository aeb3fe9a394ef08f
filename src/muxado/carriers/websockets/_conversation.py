"""One end of a WebSocket that carries a session, without I/O.

How it works. A `Conversation` stands between a front end, which moves bytes, and the library's own
sans-I/O protocol. What arrives is handed to that one, and the payloads of the frames that it gives
are the session's bytes; what the session sends is handed to it as messages. What else happens to a
WebSocket, from its handshake to its close codes, ends up in a few attributes.

A WebSocket has no half-close: what a peer sends after it was sent a close frame is discarded.
Sessions over it end as those over TLS do, a ping's answer telling that all has arrived.
"""

from __future__ import annotations

import errno
from typing import Any

from ...errors import ProtocolError
from ...extras import needs
from .._rules import (
    INTERNAL_ERROR,
    NORMAL,
    ORDERLY_CODES,
    TEXT_RECEIVED,
    UNSUPPORTED,
    pieces,
    wire_of,
)
from ..errors import HandshakeRefused, WebSocketLost, wanted_pause

with needs("websockets"):
    from websockets.client import ClientProtocol
    from websockets.exceptions import InvalidStatus
    from websockets.frames import Frame, Opcode
    from websockets.http11 import Request, Response
    from websockets.protocol import State
    from websockets.server import ServerProtocol

__all__ = ["Conversation"]

# Pings that are answered while the peer reads nothing: more of them would pile up as answers.
MOST_PINGS = 64


class Conversation:
    """One end of a WebSocket.

    Attributes:
        info: what is known of it, by the names of `get_extra_info`.
        opened: True once the handshake is done.
        refusal: why the handshake has failed, else None.
        ended: True once the peer has ended its output, in order or by cutting the connection.
        failure: why the session over it is lost, else None. What was received before still counts.
    """

    def __init__(
        self, protocol: ClientProtocol | ServerProtocol, request: Request | None = None
    ) -> None:
        """Begin it; `request` is a client's."""
        self.info: dict[str, object] = {}
        self.opened: bool = False
        self.refusal: HandshakeRefused | None = None
        self.ended: bool = False
        self.failure: Exception | None = None
        self._protocol = protocol
        self._pings = 0  # since the peer has ceased to read
        if request is not None:
            assert isinstance(protocol, ClientProtocol)
            protocol.send_request(request)

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        # A close frame that came together with the handshake's request leaves the state open.
        return self._protocol.state is State.OPEN and self._protocol.close_rcvd is None

    @property
    def agreed(self) -> str | None:
        """The wire that the handshake has chosen, by its subprotocol; None if it chose none."""
        return wire_of(self._protocol.subprotocol)

    def receive(self, data: bytes, stuck: bool) -> bytes:
        """Take in what has come; return the session's bytes in it.

        Args:
            data: what has come.
            stuck: whether the peer does not read what it is sent.
        """
        protocol = self._protocol
        protocol.receive_data(data)
        received: list[Any] = []
        pings = 0
        for event in protocol.events_received():
            if not isinstance(event, Frame):
                self._shake_hands(event)
            elif event.opcode is Opcode.BINARY or event.opcode is Opcode.CONT:
                received.append(event.data)
            elif event.opcode is Opcode.TEXT:
                self._fail(TEXT_RECEIVED)
                break
            elif event.opcode is Opcode.PING:
                pings += 1
        self._pings = self._pings + pings if stuck else 0
        if self._pings > MOST_PINGS:
            self._fail("the peer sent WebSocket pings and did not read the answers")
        if not self.opened and protocol.handshake_exc is not None:
            self._refuse(protocol.handshake_exc)
        if self.failure is None:
            self._look_for_end()
        return received[0] if len(received) == 1 else b"".join(received)

    def receive_eof(self, exc: Exception | None = None) -> None:
        """Take note that the connection's input has ended, by an error if there is one."""
        self.ended = True
        if not self.opened and self.refusal is None:
            self._refuse(exc or EOFError("the connection was closed in the handshake"))

    def send(self, data: bytes) -> None:
        """Send the session's bytes.

        Raises:
            OSError: the WebSocket is closed.
        """
        if not self.is_open:
            raise self.failure or BrokenPipeError(errno.EPIPE, "the WebSocket is closed")
        for piece in pieces(data):
            self._protocol.send_binary(piece)

    def close(self) -> None:
        """Say that no more will be sent."""
        self._say_end(NORMAL)

    def abort(self) -> None:
        """Say that the session was broken off."""
        self._say_end(INTERNAL_ERROR)

    def data_to_send(self) -> tuple[bytes, bool]:
        """Return the connection's next bytes, and whether they are its last ones."""
        data = self._protocol.data_to_send()
        ends = bool(data) and not data[-1]  # the library's sign
        return data[0] if len(data) == 1 else b"".join(data), ends

    def _say_end(self, code: int) -> None:
        if self.is_open:
            self._protocol.send_close(code)

    def _shake_hands(self, event: Request | Response) -> None:
        """Answer a client's request, or take note of a server's response."""
        protocol = self._protocol
        if isinstance(event, Request):
            assert isinstance(protocol, ServerProtocol)
            protocol.send_response(protocol.accept(event))
            self.info["path"] = event.path
        self.info["headers"] = event.headers
        self.info["subprotocol"] = protocol.subprotocol
        self.opened = protocol.handshake_exc is None

    def _refuse(self, exc: Exception) -> None:
        """Take note of why the handshake has failed."""
        if isinstance(exc, InvalidStatus):
            response = exc.response
            status = response.status_code
            after = wanted_pause(response.headers.get("Retry-After"), None)
            message = f"the server answered with HTTP status {status}"
            self.refusal = HandshakeRefused(message, status, after)
        else:
            self.refusal = HandshakeRefused(f"the WebSocket's handshake failed: {exc}")
        self.refusal.__cause__ = exc

    def _fail(self, message: str) -> None:
        """End it because the peer has broken the rules, and tell it so."""
        self.failure = ProtocolError(message)
        if self.is_open:
            self._protocol.fail(UNSUPPORTED, message)

    def _look_for_end(self) -> None:
        close, broken = self._protocol.close_rcvd, self._protocol.parser_exc
        if close is not None and int(close.code) in ORDERLY_CODES:
            self.ended = True
        elif close is not None:
            self.failure = WebSocketLost(int(close.code), close.reason)
        elif broken is not None and self.opened:
            self.failure = ProtocolError(f"the peer broke WebSocket's rules: {broken}")
