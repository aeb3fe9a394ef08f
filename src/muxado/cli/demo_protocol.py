"""What the demo's two processes agree on."""

from __future__ import annotations

import random

from ..config import Config

# What a stream is for is its type.
ECHO = 1  # a request: the reply is the same bytes
DOWNLOAD = 2  # PATTERN over and over, until the asking side half-closes
CALLBACKS = 3  # while this stream is open, the server opens ECHO streams to the client
CALLBACK_REPORT = 4  # how many of those there were, and how many were wrong

CONFIG = Config(typed=True, max_incoming_streams=20_000, accept_backlog=20_000)

REQUEST_SIZE = 64
CALLBACKS_AT_ONCE = 16
PATTERN = random.Random(20).randbytes(1 << 20)  # noqa: S311  # data to compare, not a secret
