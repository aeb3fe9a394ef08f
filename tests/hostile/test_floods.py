"""Floods: what is held stays within the bound that is stated for each; no other session is hurt."""

from __future__ import annotations

import pytest

from muxado.wire.codec import GO_AWAY
from tests import inside

from ..frames import read_frames
from .floods import BURSTS, FLOODS, UNREAD_BURSTS
from .target import Target


@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
@pytest.mark.parametrize("peer_reads", [True, False], ids=["read", "unread"])
@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_bounded(name: str, peer_reads: bool, client: bool) -> None:
    flood = FLOODS[name]
    code = flood.if_read if peer_reads else flood.if_unread
    # The tracer counts every thread of the process, the test runner's too. What the flood makes
    # us hold is held each time.
    for _ in range(3):
        target = Target(flood, peer_reads, client)
        # Unread answers count when as much as a read may bring waits behind them.
        target.run(BURSTS if code is None or peer_reads else UNREAD_BURSTS)
        if target.most_held <= flood.bound:
            break
    assert target.most_held <= flood.bound
    if code is None:
        target.check_bystander()
    else:
        check_ended(target, code)


def check_ended(target: Target, code: int) -> None:
    core = target.core
    assert core.reason is not None
    assert (core.reason.code, core.reason.by_peer, core.reason.clean) == (code, False, False)
    assert not inside.streams(core)
    if not target.peer_reads:
        last = read_frames([core.data_to_send(target.now, 65536)])[-1]
        assert (last.kind, last.code) == (GO_AWAY, code)
    assert not inside.pending(core)
