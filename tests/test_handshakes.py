"""Which connection in its handshake is given up for another one."""

from __future__ import annotations

import logging

import pytest

from muxado.handshakes import Handshakes


def test_a_new_connection_takes_the_place_of_the_oldest_silent_one() -> None:
    handshakes: Handshakes[int] = Handshakes(3)
    assert [handshakes.begin(number) for number in range(5)] == [None, None, None, 0, 1]
    assert len(handshakes) == 3


def test_one_that_has_said_hello_is_safe_from_silent_ones() -> None:
    handshakes: Handshakes[str] = Handshakes(4)
    for honest in ("a", "b"):
        handshakes.begin(honest)
        handshakes.spoke(honest)
    given_up = [handshakes.begin(f"silent {number}") for number in range(100)]
    assert given_up == [None, None, *(f"silent {number}" for number in range(98))]


def test_one_whose_hello_was_not_looked_at_yet_is_safe_from_silent_ones() -> None:
    said = {"a", "b"}
    handshakes: Handshakes[str] = Handshakes(4, said.__contains__)
    given_up = [handshakes.begin(name) for name in ("a", "b")]
    given_up += [handshakes.begin(f"silent {number}") for number in range(100)]
    assert given_up == [None, None, None, None, *(f"silent {number}" for number in range(98))]


def test_a_silent_one_is_safe_from_those_that_begin_and_stall() -> None:
    handshakes: Handshakes[str] = Handshakes(4)
    for number in range(4):
        handshakes.begin(f"stalled {number}")
        handshakes.spoke(f"stalled {number}")
    assert [handshakes.begin("a"), handshakes.begin("b")] == ["stalled 0", "stalled 1"]


def test_one_whose_handshake_is_over_is_not_given_up() -> None:
    handshakes: Handshakes[str] = Handshakes(2)
    handshakes.begin("a")
    handshakes.end("a")
    handshakes.end("a")
    handshakes.spoke("a")
    assert [handshakes.begin(name) for name in "bcd"] == [None, None, "b"]
    handshakes.end("c")
    handshakes.end("d")
    assert handshakes.oldest() is None


def test_it_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    handshakes: Handshakes[int] = Handshakes(1)
    for number in range(50):
        handshakes.begin(number)
    assert [entry.levelno for entry in caplog.records] == [logging.WARNING]
