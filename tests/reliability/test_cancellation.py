"""A cancel at every await point of every public coroutine leaves everything right."""

from __future__ import annotations

import pytest

import muxado
import muxado.adapters.anyio

from ..certificates import Tls
from ..fixtures import NewPair, new_pair
from ..transports import Connect, over_tcp, over_tls
from .cancelled_adapters import ADAPTERS
from .cancelled_dialers import DIALERS
from .cancelled_places import PLACES
from .cancelled_relays import RELAYS
from .cancelled_sessions import SESSIONS
from .cancelled_streams import STREAMS
from .cancelling import Stage, every_cut, public_coroutines

__all__ = ["new_pair"]

pytestmark = pytest.mark.anyio

SCENARIOS = STREAMS | SESSIONS | PLACES | DIALERS | RELAYS | ADAPTERS

# These only look at what is there, and so can't be cancelled once they run.
NEVER_WAIT = {
    "ByteStream.__aenter__",
    "Dialer.__aenter__",
    "Listener.__aenter__",
    "Server.__aenter__",
    "Session.__aenter__",
    "Stream.__aenter__",
    "StreamListener.__aenter__",
    "StreamServer.__aenter__",
    "StreamServer.start_serving",
}

# What carries a session matters where it begins or ends, and nowhere else.
ENDS = ["Session.__aexit__", "Session.serve", "Session.shutdown", "Session.wait_closed"]
CASES = [(name, False) for name in SCENARIOS]
CASES += [(name, True) for name in [*ENDS, *PLACES, *DIALERS] if name not in NEVER_WAIT]


def test_every_public_coroutine_has_a_scenario() -> None:
    assert {name.partition(":")[0] for name in SCENARIOS} == public_coroutines(
        muxado
    ) | public_coroutines(muxado.adapters.anyio)


@pytest.fixture
def transport(secure: bool) -> Connect:
    return over_tls if secure else over_tcp


@pytest.mark.parametrize(
    ("name", "secure"), CASES, ids=[f"{name}{', TLS' * secure}" for name, secure in CASES]
)
async def test_cancelling_leaves_everything_right(
    no_complaints: None, new_pair: NewPair, tls: Tls, name: str, secure: bool
) -> None:
    turns = await every_cut(SCENARIOS[name], Stage(new_pair, tls, secure))
    # Cancelled after no turn at all it has not even begun.
    assert (turns > 1) == (name not in NEVER_WAIT)
