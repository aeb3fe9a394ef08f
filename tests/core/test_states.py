"""The tables of states: what can happen where, and that every state leads to the end."""

from __future__ import annotations

import pytest

from muxado.core import CLOSED, ENDED, IDLE, OPEN, SESSION_STATES, STREAM_STATES
from muxado.core.states import (
    END,
    NEVER,
    RECV_FIN,
    RECV_SYN,
    RESET,
    SEND_FIN,
    SEND_SYN,
    SESSION_TABLE,
    STREAM_TABLE,
)


def test_each_state_has_a_name_and_a_row() -> None:
    assert len(STREAM_STATES) == len(set(STREAM_STATES)) == len(STREAM_TABLE)
    states = {state for state, _ in SESSION_TABLE} | set(SESSION_TABLE.values())
    assert states == set(range(len(SESSION_STATES)))


@pytest.mark.parametrize("state", range(len(STREAM_TABLE)))
def test_a_reset_ends_a_stream_from_everywhere_and_nothing_opens_it_again(state: int) -> None:
    row = STREAM_TABLE[state]
    assert row[RESET] == (CLOSED if state != CLOSED else NEVER)
    assert all(after == NEVER or after > state for after in row)
    assert (row[SEND_SYN] == row[RECV_SYN] == OPEN) == (state == IDLE)


def test_both_fins_end_a_stream_in_either_order() -> None:
    for first, second in ((SEND_FIN, RECV_FIN), (RECV_FIN, SEND_FIN)):
        between = STREAM_TABLE[OPEN][first]
        assert STREAM_TABLE[between][first] == NEVER
        assert STREAM_TABLE[between][second] == CLOSED


def test_a_session_only_comes_nearer_to_its_end_and_may_end_from_everywhere() -> None:
    assert all(after > before for (before, _), after in SESSION_TABLE.items())
    for state in range(ENDED):
        assert SESSION_TABLE[state, END] == ENDED
