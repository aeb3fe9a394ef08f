"""Where to dial: the same for every front end, said before anything is waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import muxado
import muxado.sync
import muxado.trio

CONNECTS = [muxado.connect, muxado.sync.connect, muxado.trio.connect]


@pytest.mark.parametrize("connect", CONNECTS, ids=["asyncio", "sync", "trio"])
def test_a_port_alone_is_no_place_to_dial(connect: Callable[..., Any]) -> None:
    with pytest.raises(muxado.UsageError, match="port= needs host="):
        connect(port=1)
