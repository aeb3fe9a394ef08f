"""A client's first 8 bytes tell its wire format from all others."""

from __future__ import annotations

import pytest

from muxado.wire import FORMATS
from muxado.wire.auto import ENOUGH, recognise

from ..golden import transcript, vectors

FIRST = {
    "muxado-v2": ["data-syn-empty", "data-syn-hello", "data-typed-stream-open"],
    "muxado-v1": ["syn-plain", "syn-priority", "syn-type", "syn-priority-type", "syn-heartbeat"],
    "yamux": ["window-syn-open", "window-syn-open-1mib", "data-syn", "ping-syn-0"],
    "smux-v1": ["syn-client-first", "nop"],
    "smux-v2": ["syn-client-first", "nop"],
}
GOLDEN = [
    (wire, vector)
    for wire, names in FIRST.items()
    for vector in vectors(wire)
    if vector.name in names and vector.valid
]
TRANSCRIPTS = [
    (f"muxado-{generation}", scenario, generation)
    for generation, scenarios in {
        "v1": [
            "close-with-open-streams",
            "flow-control-1mib",
            "goaway-graceful-go-bug",
            "heartbeat",
            "open-echo-close",
            "typed-priority-streams",
        ],
        "v2": ["100-interleaved", "flow-control-1mib", "open-echo-close", "typed-streams"],
    }.items()
    for scenario in scenarios
]


@pytest.mark.parametrize(
    ("wire", "first"),
    [(wire, vector.wire[:ENOUGH]) for wire, vector in GOLDEN],
    ids=[f"{wire}-{vector}" for wire, vector in GOLDEN],
)
def test_a_golden_opening_is_recognised(wire: str, first: bytes) -> None:
    assert recognise(first) is FORMATS[wire]


def test_every_format_has_golden_openings() -> None:
    assert {wire for wire, _ in GOLDEN} == set(FORMATS)


@pytest.mark.parametrize(("wire", "scenario", "generation"), TRANSCRIPTS)
def test_a_recorded_client_is_recognised(wire: str, scenario: str, generation: str) -> None:
    first = b"".join(transcript(scenario, generation).parts("client_to_server"))[:ENOUGH]
    assert recognise(first) is FORMATS[wire]


@pytest.mark.parametrize("wire", FORMATS)
@pytest.mark.parametrize("stream_type", [0, 7])
def test_our_own_client_is_recognised(wire: str, stream_type: int) -> None:
    chosen = FORMATS[wire]
    stream_id = chosen.rules.first_client_id
    openings = [chosen.encoder.ping()]
    if chosen.rules.opens_apart:
        openings.append(chosen.encoder.open(stream_id, stream_type, 0))
    else:
        openings.append(chosen.encoder.data_header(stream_id, 12, True, False))
    if chosen.rules.go_away:
        openings.append(chosen.encoder.go_away(0, 0, b"bye", True))
    for first in openings:
        assert recognise(first[:ENOUGH]) is chosen


@pytest.mark.parametrize("first", [bytes(8), b"\x03" + bytes(7), b"\x00\x09\x00\x01" + bytes(4)])
def test_what_is_no_format_is_none(first: bytes) -> None:
    assert recognise(first) is None
