"""Config: each check, by a value that it alone refuses, and the values at its edge."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest

import muxado
from muxado import Config

WHOLE = (
    "initial_window",
    "max_window",
    "max_receive_memory",
    "max_incoming_streams",
    "accept_backlog",
    "write_high_water",
    "read_limit",
)
TIMES = ("close_timeout", "type_timeout")
PINGS = ("ping_interval", "ping_timeout", "stall_timeout", "hold_timeout")
BEYOND_FLOATS = 10**400

WRONG: list[tuple[str, object]] = [
    *((name, value) for name in WHOLE for value in (-1, True, 1.0, "1", math.inf)),
    *((name, None) for name in WHOLE if name != "initial_window"),
    *(("wire", value) for value in ("", "muxado", "smux", 2, None)),
    *((name, 0) for name in WHOLE if name != "max_incoming_streams"),
    ("initial_window", 2**31),
    *((name, value) for name in TIMES + PINGS for value in (0, 0.0, -1, -math.inf)),
    *((name, value) for name in TIMES + PINGS for value in (True, "5", b"5", [5], 5j)),
    *((name, value) for name in TIMES + PINGS for value in (math.nan, BEYOND_FLOATS)),
    *((name, None) for name in TIMES),
    *(("typed", value) for value in ("no", 1, 0, None)),
    *(("heartbeat_type", value) for value in (-1, 2**32, 1.5, "1", True, None)),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda value: str(value)[:20])
def test_a_wrong_value_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(muxado.ConfigError, match=rf"Config\.{name} must") as caught:
        Config(**{name: value})
    assert isinstance(caught.value, muxado.UsageError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("low", [{"initial_window": 3}, {"write_high_water": 4}])
def test_a_typed_session_needs_room_for_the_type(low: dict[str, Any]) -> None:
    with pytest.raises(muxado.ConfigError, match="type bytes"):
        Config(typed=True, **low)
    Config(**low)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, 1) for name in WHOLE),
        ("max_incoming_streams", 0),
        ("initial_window", 2**31 - 1),
        ("max_window", 2**40),
        *((name, value) for name in TIMES + PINGS for value in (5, 0.001, 30 * 86400, math.inf)),
        *((name, None) for name in PINGS),
        ("typed", True),
        ("heartbeat_type", 0),
        ("heartbeat_type", 2**32 - 1),
    ],
)
def test_values_at_the_edge_are_taken(name: str, value: Any) -> None:
    assert getattr(Config(**{name: value}), name) == value


def test_the_smallest_sizes_of_a_typed_session_are_taken() -> None:
    Config(typed=True, initial_window=4, write_high_water=5)


def test_it_can_be_compared_and_pickled_and_not_changed() -> None:
    config = Config(read_limit=7)
    assert pickle.loads(pickle.dumps(config)) == config != Config()
    with pytest.raises(AttributeError):
        config.read_limit = 8  # type: ignore[misc]
