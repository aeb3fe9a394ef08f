"""A cancel at every checkpoint of every public coroutine leaves everything right."""

from __future__ import annotations

import pytest

import muxado.trio
from tests.certificates import Tls
from tests.reliability.cancelling import public_coroutines

from .cancelled_dialers import DIALERS
from .cancelled_places import PLACES
from .cancelled_streams import CALLS
from .cancelling import Security, every_cut

SCENARIOS = CALLS | PLACES | DIALERS

# What carries a session matters where it begins or ends, and nowhere else; it is their own
# affair if they are made over a stream of the caller's.
CASES = [(name, False) for name in SCENARIOS]
CASES += [(name, True) for name in PLACES | DIALERS if not name.startswith(("client", "server"))]


def test_every_public_coroutine_has_a_scenario() -> None:
    assert set(SCENARIOS) == public_coroutines(muxado.trio)


@pytest.mark.parametrize(
    ("name", "secure"), CASES, ids=[f"{name}{', TLS' * secure}" for name, secure in CASES]
)
async def test_cancelling_leaves_everything_right(tls: Tls, name: str, secure: bool) -> None:
    security = Security(tls.client, tls.server) if secure else Security(None, None)
    assert await every_cut(SCENARIOS[name], security) > 0
