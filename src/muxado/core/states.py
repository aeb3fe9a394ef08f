"""The state machines of a stream and of a session, as tables.

A stream (docs/protocol.md section 5)::

                  SEND_SYN or RECV_SYN
           IDLE ───────────────────────▶ OPEN
                             SEND_FIN ╱      ╲ RECV_FIN
                            LOCAL_DONE        REMOTE_DONE
                             RECV_FIN ╲      ╱ SEND_FIN
                                       CLOSED          RESET leads here from everywhere

A session::

           RUNNING ──SHUT_DOWN──▶ DRAINING ──BEGIN_CLOSE──▶ CLOSING ──END──▶ ENDED
              └──────────────BEGIN_CLOSE───────────────────────▲  END leads to ENDED from everywhere
"""

from __future__ import annotations

from typing import Final

# A stream's states.
IDLE: Final = 0  # opened here, nothing on the wire yet
OPEN: Final = 1
LOCAL_DONE: Final = 2  # our FIN is out
REMOTE_DONE: Final = 3  # the peer's FIN is in
CLOSED: Final = 4

# What happens to a stream.
SEND_SYN: Final = 0
RECV_SYN: Final = 1
SEND_FIN: Final = 2
RECV_FIN: Final = 3
RESET: Final = 4  # by either side, or with the session's end

NEVER: Final = -1

STREAM_TABLE: Final[tuple[tuple[int, int, int, int, int], ...]] = (
    # SEND_SYN, RECV_SYN, SEND_FIN, RECV_FIN, RESET
    (OPEN, OPEN, NEVER, NEVER, CLOSED),  # IDLE
    (NEVER, NEVER, LOCAL_DONE, REMOTE_DONE, CLOSED),  # OPEN
    (NEVER, NEVER, NEVER, CLOSED, CLOSED),  # LOCAL_DONE
    (NEVER, NEVER, CLOSED, NEVER, CLOSED),  # REMOTE_DONE
    (NEVER, NEVER, NEVER, NEVER, NEVER),  # CLOSED
)
"""What each event makes of each state; NEVER marks what can't happen."""

STREAM_STATES: Final = ("idle", "open", "local-done", "remote-done", "closed")

# A session's states. Their order matters: each is nearer to the end than the one before.
RUNNING: Final = 0
DRAINING: Final = 1  # no new streams; the open ones run to their end
CLOSING: Final = 2  # what was written goes out, nothing else is done
ENDED: Final = 3

# What happens to a session.
SHUT_DOWN: Final = 0
BEGIN_CLOSE: Final = 1
END: Final = 2

SESSION_TABLE: Final[dict[tuple[int, int], int]] = {
    (RUNNING, SHUT_DOWN): DRAINING,
    (RUNNING, BEGIN_CLOSE): CLOSING,
    (RUNNING, END): ENDED,
    (DRAINING, BEGIN_CLOSE): CLOSING,
    (DRAINING, END): ENDED,
    (CLOSING, END): ENDED,
}

# What users and logs are told: the same states in words.
SESSION_STATES: Final = ("open", "draining", "closing", "closed")
