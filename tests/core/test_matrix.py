"""Every frame in every state of a stream, on every wire: our answer, and what the application sees.

The table is that of muxado v2, whose rules are the defaults. `on_wire` says what becomes of a row
by the rules that another wire has instead, and never which wire that is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from muxado.config import Config
from muxado.core import CLOSING, RUNNING, STREAM_STATES, CoreSession, CoreStream
from muxado.errors import MuxadoError
from muxado.wire import FORMATS, NO_WINDOW, Rules
from muxado.wire.codec import CREDIT, DATA, GO_AWAY, PING, RESET
from tests import inside

from ..frames import Frame, Packer, read_frames

NOW = 100.0

# What a peer sends on a stream; `long` is a byte more than the first window.
FRAMES: dict[str, Callable[[Packer, int], bytes]] = {
    "data": lambda p, i: p.data(i, 5),
    "empty": lambda p, i: p.data(i, 0),
    "data+fin": lambda p, i: p.data(i, 5, fin=True),
    "fin": lambda p, i: p.data(i, 0, fin=True),
    "syn": lambda p, i: p.data(i, 0, syn=True),
    "syn+data": lambda p, i: p.data(i, 5, syn=True),
    "syn+fin": lambda p, i: p.data(i, 0, syn=True, fin=True),
    "syn+data+fin": lambda p, i: p.data(i, 5, syn=True, fin=True),
    "rst": lambda p, i: p.reset(i, 7),
    "wndinc": lambda p, i: p.credit(i, 1000),
    "long": lambda p, i: p.data(i, p.rules.first_window + 1),
    "long+fin": lambda p, i: p.data(i, p.rules.first_window + 1, fin=True),
    "long+syn": lambda p, i: p.data(i, p.rules.first_window + 1, syn=True),
}

# Columns: the frame, our answer, the stream's state afterwards, what a read and a write meet.
# The stream is the one that has the id now: after a SYN that was let in, the new one.
TABLE: dict[str, str] = {
    "local unknown": """
        data           RST:4      -             -                  -
        empty          RST:4      -             -                  -
        data+fin       RST:4      -             -                  -
        fin            -          -             -                  -
        syn            GOAWAY:1   -             -                  -
        syn+data       GOAWAY:1   -             -                  -
        syn+fin        GOAWAY:1   -             -                  -
        syn+data+fin   GOAWAY:1   -             -                  -
        rst            -          -             -                  -
        wndinc         -          -             -                  -
        long           RST:4      -             -                  -
        long+fin       RST:4      -             -                  -
        long+syn       GOAWAY:1   -             -                  -
    """,
    "remote unknown": """
        data           RST:4      -             -                  -
        empty          RST:4      -             -                  -
        data+fin       RST:4      -             -                  -
        fin            -          -             -                  -
        syn            -          open          waits              ok
        syn+data       -          open          5                  ok
        syn+fin        -          remote-done   eof                ok
        syn+data+fin   -          remote-done   5+eof              ok
        rst            -          -             -                  -
        wndinc         -          -             -                  -
        long           RST:4      -             -                  -
        long+fin       RST:4      -             -                  -
        long+syn       RST:3      -             -                  -
    """,
    "local idle": """
        data           RST:4      idle          waits              ok
        empty          RST:4      idle          waits              ok
        data+fin       RST:4      idle          waits              ok
        fin            -          idle          waits              ok
        syn            GOAWAY:1   closed        ProtocolError:1    ProtocolError:1
        syn+data       GOAWAY:1   closed        ProtocolError:1    ProtocolError:1
        syn+fin        GOAWAY:1   closed        ProtocolError:1    ProtocolError:1
        syn+data+fin   GOAWAY:1   closed        ProtocolError:1    ProtocolError:1
        rst            -          idle          waits              ok
        wndinc         -          idle          waits              ok
        long           RST:4      idle          waits              ok
        long+fin       RST:4      idle          waits              ok
        long+syn       GOAWAY:1   closed        ProtocolError:1    ProtocolError:1
    """,
    "local open": """
        data           -          open          5                  ok
        empty          -          open          waits              ok
        data+fin       -          remote-done   5+eof              ok
        fin            -          remote-done   eof                ok
        syn            GOAWAY:1   closed        ProtocolError:1    ProtocolError:1
        syn+data       GOAWAY:1   closed        ProtocolError:1    ProtocolError:1
        syn+fin        GOAWAY:1   closed        ProtocolError:1    ProtocolError:1
        syn+data+fin   GOAWAY:1   closed        ProtocolError:1    ProtocolError:1
        rst            -          closed        StreamReset:7      StreamReset:7
        wndinc         -          open          waits              ok
        long           RST:3      closed        StreamReset:3      StreamReset:3
        long+fin       RST:3      closed        StreamReset:3      StreamReset:3
        long+syn       GOAWAY:1   closed        ProtocolError:1    ProtocolError:1
    """,
    "local local-done": """
        data           -          local-done    5                  StreamClosed:4
        empty          -          local-done    waits              StreamClosed:4
        data+fin       -          closed        5+eof              StreamClosed:4
        fin            -          closed        eof                StreamClosed:4
        syn            GOAWAY:1   closed        ProtocolError:1    ProtocolError:1
        syn+data       GOAWAY:1   closed        ProtocolError:1    ProtocolError:1
        syn+fin        GOAWAY:1   closed        ProtocolError:1    ProtocolError:1
        syn+data+fin   GOAWAY:1   closed        ProtocolError:1    ProtocolError:1
        rst            -          closed        StreamReset:7      StreamReset:7
        wndinc         -          local-done    waits              StreamClosed:4
        long           RST:3      closed        StreamReset:3      StreamReset:3
        long+fin       RST:3      closed        StreamReset:3      StreamReset:3
        long+syn       GOAWAY:1   closed        ProtocolError:1    ProtocolError:1
    """,
    "local remote-done": """
        data           RST:4      closed        eof                StreamReset:4
        empty          -          remote-done   eof                ok
        data+fin       RST:4      closed        eof                StreamReset:4
        fin            -          remote-done   eof                ok
        syn            GOAWAY:1   closed        eof                ProtocolError:1
        syn+data       GOAWAY:1   closed        eof                ProtocolError:1
        syn+fin        GOAWAY:1   closed        eof                ProtocolError:1
        syn+data+fin   GOAWAY:1   closed        eof                ProtocolError:1
        rst            -          closed        eof                StreamReset:7
        wndinc         -          remote-done   eof                ok
        long           RST:4      closed        eof                StreamReset:4
        long+fin       RST:4      closed        eof                StreamReset:4
        long+syn       GOAWAY:1   closed        eof                ProtocolError:1
    """,
    "local closed": """
        data           RST:4      closed        eof                StreamClosed:4
        empty          RST:4      closed        eof                StreamClosed:4
        data+fin       RST:4      closed        eof                StreamClosed:4
        fin            -          closed        eof                StreamClosed:4
        syn            GOAWAY:1   closed        eof                ProtocolError:1
        syn+data       GOAWAY:1   closed        eof                ProtocolError:1
        syn+fin        GOAWAY:1   closed        eof                ProtocolError:1
        syn+data+fin   GOAWAY:1   closed        eof                ProtocolError:1
        rst            -          closed        eof                StreamClosed:4
        wndinc         -          closed        eof                StreamClosed:4
        long           RST:4      closed        eof                StreamClosed:4
        long+fin       RST:4      closed        eof                StreamClosed:4
        long+syn       GOAWAY:1   closed        eof                ProtocolError:1
    """,
    "remote closed": """
        data           RST:4      closed        eof                StreamClosed:4
        empty          RST:4      closed        eof                StreamClosed:4
        data+fin       RST:4      closed        eof                StreamClosed:4
        fin            -          closed        eof                StreamClosed:4
        syn            -          open          waits              ok
        syn+data       -          open          5                  ok
        syn+fin        -          remote-done   eof                ok
        syn+data+fin   -          remote-done   5+eof              ok
        rst            -          closed        eof                StreamClosed:4
        wndinc         -          closed        eof                StreamClosed:4
        long           RST:4      closed        eof                StreamClosed:4
        long+fin       RST:4      closed        eof                StreamClosed:4
        long+syn       RST:3      closed        eof                StreamClosed:4
    """,
    "local left": """
        data           RST:4      closed        StreamClosed:4     StreamClosed:4
        empty          RST:4      closed        StreamClosed:4     StreamClosed:4
        data+fin       RST:4      closed        StreamClosed:4     StreamClosed:4
        fin            -          closed        StreamClosed:4     StreamClosed:4
        syn            GOAWAY:1   closed        ProtocolError:1    ProtocolError:1
        syn+data       GOAWAY:1   closed        ProtocolError:1    ProtocolError:1
        syn+fin        GOAWAY:1   closed        ProtocolError:1    ProtocolError:1
        syn+data+fin   GOAWAY:1   closed        ProtocolError:1    ProtocolError:1
        rst            -          closed        StreamClosed:4     StreamClosed:4
        wndinc         -          closed        StreamClosed:4     StreamClosed:4
        long           RST:4      closed        StreamClosed:4     StreamClosed:4
        long+fin       RST:4      closed        StreamClosed:4     StreamClosed:4
        long+syn       GOAWAY:1   closed        ProtocolError:1    ProtocolError:1
    """,
    "remote left": """
        data           RST:4      closed        StreamClosed:4     StreamClosed:4
        empty          RST:4      closed        StreamClosed:4     StreamClosed:4
        data+fin       RST:4      closed        StreamClosed:4     StreamClosed:4
        fin            -          closed        StreamClosed:4     StreamClosed:4
        syn            -          open          waits              ok
        syn+data       -          open          5                  ok
        syn+fin        -          remote-done   eof                ok
        syn+data+fin   -          remote-done   5+eof              ok
        rst            -          closed        StreamClosed:4     StreamClosed:4
        wndinc         -          closed        StreamClosed:4     StreamClosed:4
        long           RST:4      closed        StreamClosed:4     StreamClosed:4
        long+fin       RST:4      closed        StreamClosed:4     StreamClosed:4
        long+syn       RST:3      closed        StreamClosed:4     StreamClosed:4
    """,
    "local reset": """
        data           -          closed        StreamReset:6      StreamReset:6
        empty          -          closed        StreamReset:6      StreamReset:6
        data+fin       -          closed        StreamReset:6      StreamReset:6
        fin            -          closed        StreamReset:6      StreamReset:6
        syn            GOAWAY:1   closed        StreamReset:6      StreamReset:6
        syn+data       GOAWAY:1   closed        StreamReset:6      StreamReset:6
        syn+fin        GOAWAY:1   closed        StreamReset:6      StreamReset:6
        syn+data+fin   GOAWAY:1   closed        StreamReset:6      StreamReset:6
        rst            -          closed        StreamReset:6      StreamReset:6
        wndinc         -          closed        StreamReset:6      StreamReset:6
        long           -          closed        StreamReset:6      StreamReset:6
        long+fin       -          closed        StreamReset:6      StreamReset:6
        long+syn       GOAWAY:1   closed        StreamReset:6      StreamReset:6
    """,
    "remote reset": """
        data           -          closed        StreamReset:6      StreamReset:6
        empty          -          closed        StreamReset:6      StreamReset:6
        data+fin       -          closed        StreamReset:6      StreamReset:6
        fin            -          closed        StreamReset:6      StreamReset:6
        syn            -          open          waits              ok
        syn+data       -          open          5                  ok
        syn+fin        -          remote-done   eof                ok
        syn+data+fin   -          remote-done   5+eof              ok
        rst            -          closed        StreamReset:6      StreamReset:6
        wndinc         -          closed        StreamReset:6      StreamReset:6
        long           -          closed        StreamReset:6      StreamReset:6
        long+fin       -          closed        StreamReset:6      StreamReset:6
        long+syn       RST:3      closed        StreamReset:6      StreamReset:6
    """,
    "local refused": """
        data           RST:4      closed        StreamRefused:5    StreamRefused:5
        empty          RST:4      closed        StreamRefused:5    StreamRefused:5
        data+fin       RST:4      closed        StreamRefused:5    StreamRefused:5
        fin            -          closed        StreamRefused:5    StreamRefused:5
        syn            GOAWAY:1   closed        StreamRefused:5    StreamRefused:5
        syn+data       GOAWAY:1   closed        StreamRefused:5    StreamRefused:5
        syn+fin        GOAWAY:1   closed        StreamRefused:5    StreamRefused:5
        syn+data+fin   GOAWAY:1   closed        StreamRefused:5    StreamRefused:5
        rst            -          closed        StreamRefused:5    StreamRefused:5
        wndinc         -          closed        StreamRefused:5    StreamRefused:5
        long           RST:4      closed        StreamRefused:5    StreamRefused:5
        long+fin       RST:4      closed        StreamRefused:5    StreamRefused:5
        long+syn       GOAWAY:1   closed        StreamRefused:5    StreamRefused:5
    """,
    "remote refused": """
        data           -          -             -                  -
        empty          -          -             -                  -
        data+fin       -          -             -                  -
        fin            -          -             -                  -
        syn            RST:5      -             -                  -
        syn+data       RST:5      -             -                  -
        syn+fin        RST:5      -             -                  -
        syn+data+fin   RST:5      -             -                  -
        rst            -          -             -                  -
        wndinc         -          -             -                  -
        long           -          -             -                  -
        long+fin       -          -             -                  -
        long+syn       RST:5      -             -                  -
    """,
}
# Here it makes no difference who opened the stream.
TABLE["remote open"] = TABLE["local open"]
TABLE["remote local-done"] = TABLE["local local-done"]
TABLE["remote remote-done"] = TABLE["local remote-done"]

Row = list[str]


def rows_of(state: str) -> dict[str, Row]:
    lines = [line.split() for line in TABLE[state].splitlines() if line.strip()]
    return {frame: columns for frame, *columns in lines}


def can_be(rules: Rules, state: str) -> bool:
    """Return whether a stream can come into a state on a wire."""
    if state == "remote refused":
        return rules.resets and rules.go_away
    if state == "local refused":
        return rules.resets and rules.codes
    return rules.resets or not state.endswith("reset")


def can_say(rules: Rules, frame: str) -> bool:
    """Return whether a peer can say something on a wire."""
    if frame == "rst":
        return rules.resets
    return rules.first_window != NO_WINDOW or not (frame.startswith("long") or frame == "wndinc")


def on_wire(rules: Rules, state: str, frame: str) -> Row:
    """Return the row of a wire with these rules."""
    rows = rows_of(state)
    side, _, where = state.partition(" ")
    opens = "syn" in frame
    live = where in ("open", "local-done", "remote-done")
    if opens and side == "remote" and live and rules.repeated_syn:
        opens = False
        frame = {"syn": "empty", "long+syn": "long"}.get(frame, frame.removeprefix("syn+"))
    if opens and side == "remote" and where not in ("unknown", "refused") and rules.ids_rise:
        return rows_of(f"local {where}")[frame]
    if opens and state == "remote refused" and rules.ids_rise:
        return ["GOAWAY:1", "-", "-", "-"]
    row = rows[frame]
    if not rules.resets:
        row = without_resets(rules, where, frame, rows)
    if where == "idle" and rules.opens_apart and row[1] == "idle":
        row = [row[0], "open", *row[2:]]  # its frame goes out with whatever is said next
    # The window is passed with the last of several frames only.
    before = rules.first_window // rules.max_data * rules.max_data
    if before and row[0] == "RST:3" and row[2] == "StreamReset:3":
        row = [*row[:2], str(before), row[3]]
    return row


def without_resets(rules: Rules, where: str, frame: str, rows: dict[str, Row]) -> Row:
    """Return the row where nothing can be refused: the window is not enforced."""
    size = "5"
    if frame.startswith("long"):
        frame = {"long": "data", "long+fin": "data+fin", "long+syn": "syn+data"}[frame]
        size = str(rules.first_window + 1)
    if where == "remote-done" and rows[frame][0].startswith("RST"):
        frame = "empty"
    answer, after, reader, writer = rows[frame]
    if answer.startswith("RST"):
        answer = "-"
    return [
        answer,
        after,
        reader.replace("5", size) if reader in ("5", "5+eof") else reader,
        writer,
    ]


class Bench:
    """A session on a wire, beside a stream that everything else must leave alone."""

    def __init__(self, wire: str, client: bool) -> None:
        self.wire = FORMATS[wire]
        self.core = CoreSession(client=client, config=Config(wire=wire), now=NOW)
        self.packer = Packer(self.wire)
        rules = self.wire.rules
        first, second = rules.first_client_id, rules.first_server_id
        self.local, peers_first = (first, second) if client else (second, first)
        self.remote = peers_first + 2
        self.bystander = self.opened_by_peer(peers_first)
        self.hear(self.packer.data(self.bystander.stream_id, 6))
        self.frames()

    def opened_by_peer(self, stream_id: int) -> CoreStream:
        self.hear(self.packer.data(stream_id, 0, syn=True))
        stream = self.core.accept()
        assert stream is not None
        return stream

    def hear(self, frames: bytes) -> None:
        self.core.receive_data(frames, NOW)
        while self.core.paused:
            self.core.resume(NOW)

    def frames(self) -> list[Frame]:
        """Return what the session has to send, without pings."""
        wire = b"".join(iter(lambda: self.core.data_to_send(NOW, 1 << 20), b""))
        ping = self.wire.rules.ping_id
        return [
            frame
            for frame in read_frames([wire], self.wire)
            if frame.kind != PING and (frame.kind != DATA or frame.stream_id != ping)
        ]

    def bring_to(self, state: str) -> CoreStream | None:
        """Bring the stream of a side into a state, as `side state` says."""
        side, _, state = state.partition(" ")
        if state == "unknown":
            return None
        if side == "remote" and state == "refused":
            self.core.go_away()
            self.hear(self.packer.data(self.remote, 0, syn=True))
            assert [frame.kind for frame in self.frames()] == [GO_AWAY, RESET]
            return None
        if side == "remote":
            stream = self.opened_by_peer(self.remote)
        else:
            stream = self.core.open(eager=state != "idle")
            assert stream.stream_id == self.local
        if state == "idle":
            return stream
        self.frames()
        stream_id = stream.stream_id
        if state in ("local-done", "closed"):
            stream.finish()
        if state in ("remote-done", "closed"):
            self.hear(self.packer.data(stream_id, 0, fin=True))
        if state == "left":
            stream.close()
        if state == "reset":
            stream.reset(6)
        if state == "refused":
            self.hear(self.packer.reset(stream_id, 5))
        self.frames()
        final = {"left": "closed", "reset": "closed", "refused": "closed"}.get(state, state)
        assert STREAM_STATES[stream.state] == final
        return stream

    def answer(self, stream_id: int) -> str:
        """Return the session's answer to what it has heard about a stream."""
        said = self.frames()
        if self.core.reason is not None:
            assert (self.core.reason.by_peer, self.core.ledger.state) == (False, CLOSING)
            code = self.core.reason.code
            if self.wire.rules.go_away:
                assert [(frame.kind, frame.code) for frame in said] == [(GO_AWAY, code)]
            else:
                assert not said
            return f"GOAWAY:{code}"
        assert self.core.ledger.state == RUNNING
        words = []
        for frame in said:
            assert frame.stream_id == stream_id
            if frame.kind == RESET:
                words.append(f"RST:{frame.code}")
            elif frame.kind == CREDIT:
                assert self.wire.rules.refills  # what was thrown away is given back as well
            else:  # of the stream that was still to be announced
                assert (frame.kind, frame.syn, frame.length) == (DATA, True, 0)
        return " ".join(words) or "-"

    def check_bystander(self) -> None:
        stream = self.bystander
        assert stream.read(100) == bytes(6)
        if self.core.reason is not None:
            assert error(stream.failure()) == "ProtocolError:1"
            return
        self.hear(self.packer.data(stream.stream_id, 4))
        assert stream.read(100) == bytes(4)
        stream.write(b"echo")
        echoed = [frame for frame in self.frames() if frame.kind == DATA and frame.length]
        assert (stream.stream_id, b"echo") in [(f.stream_id, bytes(f.body)) for f in echoed]
        assert self.core.reason is None


def error(failure: MuxadoError) -> str:
    return f"{type(failure).__name__}:{int(failure.code)}"


def read_meets(stream: CoreStream | None) -> str:
    if stream is None:
        return "-"
    try:
        got = stream.read(1 << 20)
    except MuxadoError as failure:
        return error(failure)
    seen = [str(len(got))] if got else []
    if stream.at_eof():
        seen.append("eof")
    return "+".join(seen) or "waits"


def write_meets(stream: CoreStream | None) -> str:
    if stream is None:
        return "-"
    try:
        stream.write(b"answer")
    except MuxadoError as failure:
        return error(failure)
    return "ok"


def seen(wire: str, client: bool, state: str, frame: str) -> Row:
    """Return what a session makes of a frame, in the columns of the table."""
    bench = Bench(wire, client)
    stream = bench.bring_to(state)
    stream_id = bench.local if state.startswith("local") else bench.remote
    bench.hear(FRAMES[frame](bench.packer, stream_id))
    answer = bench.answer(stream_id)
    if inside.accept_queue(bench.core):
        stream = bench.core.accept()
    after = STREAM_STATES[stream.state] if stream else "-"
    row = [answer, after, read_meets(stream), write_meets(stream)]
    bench.check_bystander()
    return row


def with_codes_of(wire: str, frame: str, row: Row) -> Row:
    """Return a row with the codes that a wire carries instead."""
    told = {f":{code}": f":{code_told(wire, code)}" for code in range(10)}
    answer, after, *meets = row
    if answer.startswith("RST"):
        answer = "RST" + told[answer[3:]]
    if frame == "rst":
        meets = [f"StreamReset{told[':7']}" if m == "StreamReset:7" else m for m in meets]
    return [answer, after, *meets]


def code_told(wire: str, code: int) -> int:
    """Return the code that a reset is understood to have, which was sent with another one."""
    (frame,) = read_frames([FORMATS[wire].encoder.reset(3, code)], FORMATS[wire])
    return frame.code


STATES: list[tuple[str, str]] = [
    (wire, state) for wire in FORMATS for state in TABLE if can_be(FORMATS[wire].rules, state)
]


@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
@pytest.mark.parametrize(("wire", "state"), STATES)
def test_frames_in_a_state(wire: str, state: str, client: bool) -> None:
    rules = FORMATS[wire].rules
    frames = [frame for frame in FRAMES if can_say(rules, frame)]
    expected = {f: with_codes_of(wire, f, on_wire(rules, state, f)) for f in frames}
    assert {f: seen(wire, client, state, f) for f in frames} == expected


def test_the_table_has_a_row_for_every_pair_and_no_other() -> None:
    states = ("unknown", "open", "local-done", "remote-done", "closed", "left", "reset", "refused")
    sides = [f"{side} {state}" for side in ("local", "remote") for state in states]
    assert set(TABLE) == {*sides, "local idle"}
    for state in TABLE:
        assert list(rows_of(state)) == list(FRAMES)


def test_what_a_wire_leaves_out_it_has_no_word_for() -> None:
    def left(things: Iterable[str], can: Callable[[Rules, str], bool], wire: str) -> set[str]:
        return {thing for thing in things if not can(FORMATS[wire].rules, thing)}

    without = {"local reset", "remote reset", "local refused", "remote refused"}
    assert {wire: left(TABLE, can_be, wire) for wire in FORMATS} == {
        "muxado-v2": set(),
        "muxado-v1": set(),
        "yamux": {"local refused"},
        "smux-v2": without,
        "smux-v1": without,
    }
    assert not left(FRAMES, can_say, "yamux")
    assert left(FRAMES, can_say, "smux-v2") == {"rst"}


def test_the_page_says_how_many_there_are() -> None:
    page = (Path(__file__).parents[2] / "docs" / "howto" / "wires.md").read_text(encoding="utf-8")
    counts = []
    for wire in FORMATS:
        rules = FORMATS[wire].rules
        frames = sum(can_say(rules, frame) for frame in FRAMES)
        counts.append(2 * frames * sum(can_be(rules, state) for state in TABLE))
    assert f"| frames in a state, in both roles | {' | '.join(map(str, counts))} |\n" in page
