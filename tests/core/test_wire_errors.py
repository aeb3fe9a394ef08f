"""What a wire can't do raises the error that docs/howto/wires.md has for it, and all else works."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from muxado.config import Config
from muxado.core import CoreSession
from muxado.errors import ErrorCode, UsageError
from muxado.wire import FORMATS

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "wires.md"
ROW = re.compile(
    r"^\| `((?:session|stream|Config)[.(][^`]*)` \| ([^|`]+) \| ([^|]+) \|$", re.MULTILINE
)


def session(wire: str, **settings: object) -> CoreSession:
    config = Config(wire=wire, **settings)  # type: ignore[arg-type]
    return CoreSession(client=True, config=config, now=0.0)


def typed(wire: str) -> CoreSession:
    """Return a session whose streams may have types, if the wire can have them."""
    return session(wire, typed=wire == "muxado-v2")


CALLS: dict[str, Callable[[str], object]] = {
    "session.ping()": lambda wire: session(wire).liveness.ping(),
    "stream.reset()": lambda wire: session(wire).open().check_reset(ErrorCode.STREAM_CANCELLED),
    "stream.reset(403)": lambda wire: session(wire).open().check_reset(403),
    "session.go_away()": lambda wire: session(wire).go_away(),
    "session.go_away(403)": lambda wire: session(wire).go_away(403),
    "session.open(type=7)": lambda wire: typed(wire).open(type=7),
    "session.open(type=0xFFFFFEFF)": lambda wire: typed(wire).open(type=0xFFFFFEFF),
    "Config(typed=True)": lambda wire: Config(wire=wire, typed=True),
    "Config(initial_window=1000)": lambda wire: Config(wire=wire, initial_window=1000),
}


def errors() -> dict[tuple[str, str], str]:
    """Return the messages on the page, by call and wire."""
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    return {(call, wire): says for call, wires, says in rows for wire in wires.split(", ")}


@pytest.mark.parametrize("wire", FORMATS)
@pytest.mark.parametrize("call", CALLS)
def test_an_error_is_the_one_on_the_page(call: str, wire: str) -> None:
    says = errors().get((call, wire))
    if says is None:
        CALLS[call](wire)
        return
    with pytest.raises(UsageError) as caught:
        CALLS[call](wire)
    assert str(caught.value) == says.replace("WIRE", FORMATS[wire].rules.name)


def test_the_page_has_no_other_errors() -> None:
    assert {call for call, _ in errors()} == set(CALLS)
