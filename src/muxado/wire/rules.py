"""What a session must know of a wire format besides its bytes.

The session asks these rules, and never which format it has. The defaults are those of muxado v2.
"""

from __future__ import annotations

from typing import Final

# Where a stream's type is said.
NO_TYPES: Final = 0
TYPES_FIRST: Final = 1  # in its first bytes, if both ends have agreed on that
TYPES_IN_SYN: Final = 2  # in the frame that opens it, as its priority is

# How a peer is asked whether it lives.
NO_PINGS: Final = 0
PING_DRAWS_RESET: Final = 1  # empty DATA on an id that no stream has
PING_FRAMES: Final = 2  # a frame of its own, whose answer is one too

# The first window where nothing but the transport bounds what is sent on a stream.
NO_WINDOW: Final = 1 << 60


class Rules:
    """The rules of one format.

    Attributes:
        name: what the format is called in messages.
        known: False while the peer's first bytes have not told the format.
        alpn: the protocol's name in TLS, "" if it has none.
        first_client_id: id of the first stream a client opens; later ones count up by 2.
        first_server_id: the same for a server.
        last_id: the largest stream id there is.
        max_data: the longest DATA payload, in bytes.
        first_window: bytes that either side may send on a new stream, or NO_WINDOW.
        agreed_window: whether both ends may agree on another first window.
        total_credit: whether credit is told as a total (WINDOW), not as an increment.
        opens_apart: whether a stream is opened by a frame of its own, before any data and in the
            order of the ids.
        ids_rise: whether the peer's SYNs must have rising ids.
        repeated_syn: whether the SYN of a stream that is alive is ignored, not a breach.
        types: one of the numbers above.
        heartbeat_type: the type of heartbeat streams where frames carry types.
        first_reserved_type: types from here on are never the application's.
        heartbeats_outlive: whether the end of a heartbeat stream would end the peer's session, so
            that it lives until the transport ends.
        refills: whether a closing session must wait until the peer has given back all credit: it
            loses what it has not read when the transport ends.
        unacknowledged: how many streams may be open here that the peer hasn't acknowledged, 0 if
            the format has no acknowledgement.
        acknowledge_after: seconds after which a stream is acknowledged that the application has
            not accepted, if the format has acknowledgements.
        fin_rides: whether the last DATA frame may end its direction.
        resets: whether a stream can be reset, and so refused. Where it can't, a peer that sends
            more than there is room for is held back: its transport is not read.
        codes: whether a reset carries a code.
        closed_answer: whether DATA for a stream that the peer has forgotten draws a reset.
        pings: one of the numbers above, too.
        ping_id: the id that no stream has, on which pings draw a RST; -1 if there is none.
        keepalive: seconds after which a side that was silent must say something; 0: never.
        go_away: whether there is a frame that says the end, or the end of opening.
        go_away_text: whether it carries text.
        errors_end: whether a GOAWAY with an error is the end of the session at once.
        end_is_close: whether the transport's end between frames is the ordinary end.
    """

    __slots__ = (
        "acknowledge_after",
        "agreed_window",
        "alpn",
        "closed_answer",
        "codes",
        "end_is_close",
        "errors_end",
        "fin_rides",
        "first_client_id",
        "first_reserved_type",
        "first_server_id",
        "first_window",
        "go_away",
        "go_away_text",
        "heartbeat_type",
        "heartbeats_outlive",
        "ids_rise",
        "keepalive",
        "known",
        "last_id",
        "max_data",
        "name",
        "opens_apart",
        "ping_id",
        "pings",
        "refills",
        "repeated_syn",
        "resets",
        "total_credit",
        "types",
        "unacknowledged",
    )

    def __init__(
        self,
        *,
        name: str,
        known: bool = True,
        first_client_id: int,
        first_server_id: int,
        last_id: int,
        max_data: int,
        alpn: str = "",
        first_window: int = 256 * 1024,
        agreed_window: bool = True,
        total_credit: bool = False,
        opens_apart: bool = False,
        ids_rise: bool = False,
        repeated_syn: bool = False,
        types: int = NO_TYPES,
        heartbeat_type: int = -1,
        first_reserved_type: int = 1 << 32,
        heartbeats_outlive: bool = False,
        refills: bool = False,
        unacknowledged: int = 0,
        acknowledge_after: float = 0.0,
        fin_rides: bool = True,
        resets: bool = True,
        codes: bool = True,
        closed_answer: bool = True,
        pings: int = PING_DRAWS_RESET,
        ping_id: int = -1,
        keepalive: float = 0.0,
        go_away: bool = True,
        go_away_text: bool = True,
        errors_end: bool = False,
        end_is_close: bool = False,
    ) -> None:
        self.name: str = name
        self.known: bool = known
        self.alpn: str = alpn
        self.first_client_id: int = first_client_id
        self.first_server_id: int = first_server_id
        self.last_id: int = last_id
        self.max_data: int = max_data
        self.first_window: int = first_window
        self.agreed_window: bool = agreed_window
        self.total_credit: bool = total_credit
        self.opens_apart: bool = opens_apart
        self.ids_rise: bool = ids_rise
        self.repeated_syn: bool = repeated_syn
        self.types: int = types
        self.heartbeat_type: int = heartbeat_type
        self.first_reserved_type: int = first_reserved_type
        self.heartbeats_outlive: bool = heartbeats_outlive
        self.refills: bool = refills
        self.unacknowledged: int = unacknowledged
        self.acknowledge_after: float = acknowledge_after
        self.fin_rides: bool = fin_rides
        self.resets: bool = resets
        self.codes: bool = codes
        self.closed_answer: bool = closed_answer
        self.pings: int = pings
        self.ping_id: int = ping_id
        self.keepalive: float = keepalive
        self.go_away: bool = go_away
        self.go_away_text: bool = go_away_text
        self.errors_end: bool = errors_end
        self.end_is_close: bool = end_is_close
