"""A pair of sessions for threads, and the threads to use them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from muxado.sync import Session
from muxado.testing import sync_pair

Ends = tuple[Session, Session]


@pytest.fixture
def ends() -> Iterator[Ends]:
    with sync_pair() as (client, server):
        yield client, server
        client.abort()
        server.abort()
