"""Every frame in every state of a stream: what we answer, and what the application sees."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from muxado.core import CLOSING, RUNNING, STREAM_STATES, CoreStream
from muxado.errors import MuxadoError
from tests import inside

from .peer import WINDOW, data, rst, wndinc
from .roles import RoleBench

LOCAL, REMOTE, BYSTANDER = 2, 3, 5

FRAMES: dict[str, Callable[[int], bytes]] = {
    "data": lambda i: data(i, b"12345"),
    "empty": lambda i: data(i),
    "data+fin": lambda i: data(i, b"12345", fin=True),
    "fin": lambda i: data(i, fin=True),
    "syn": lambda i: data(i, syn=True),
    "syn+data": lambda i: data(i, b"12345", syn=True),
    "syn+fin": lambda i: data(i, syn=True, fin=True),
    "syn+data+fin": lambda i: data(i, b"12345", syn=True, fin=True),
    "rst": lambda i: rst(i, 7),
    "wndinc": lambda i: wndinc(i, 1000),
    "long": lambda i: data(i, bytes(WINDOW + 1)),
    "long+fin": lambda i: data(i, bytes(WINDOW + 1), fin=True),
    "long+syn": lambda i: data(i, bytes(WINDOW + 1), syn=True),
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


def expected(state: str) -> dict[str, list[str]]:
    lines = [line.split() for line in TABLE[state].splitlines() if line.strip()]
    return {frame: columns for frame, *columns in lines}


def bring_to(bench: RoleBench, state: str) -> CoreStream | None:
    """Bring the stream of a side into a state, as `side state` says."""
    side, _, state = state.partition(" ")
    if state == "unknown":
        return None
    if side == "remote" and state == "refused":
        bench.core.go_away()
        bench.hear(data(REMOTE, syn=True))
        assert bench.said() == [f"GOAWAY {BYSTANDER} 0", f"RST {REMOTE} 5"]
        return None
    if side == "remote":
        stream = bench.accepted(data(REMOTE, syn=True))
    else:
        stream = bench.core.open(eager=state != "idle")
    bench.flush()
    if state in ("local-done", "closed"):
        stream.finish()
    if state in ("remote-done", "closed"):
        bench.hear(data(bench.id_of(stream), fin=True))
    if state == "left":
        stream.close()
    if state == "reset":
        stream.reset(6)
    if state == "refused":
        bench.hear(rst(LOCAL, 5))
    bench.flush()
    final = {"left": "closed", "reset": "closed", "refused": "closed"}.get(state, state)
    assert STREAM_STATES[stream.state] == final
    return stream


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


@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("state", TABLE)
def test_a_frame_in_a_state(state: str, frame: str, client: bool) -> None:
    answer, after, reader, writer = expected(state)[frame]
    bench = RoleBench(client=client)
    bystander = bench.accepted(data(BYSTANDER, b"unread", syn=True))
    stream = bring_to(bench, state)

    stream_id = LOCAL if state.startswith("local") else REMOTE
    bench.hear(FRAMES[frame](stream_id))

    said = bench.said()
    if inside.accept_queue(bench.core):
        stream = bench.core.accept()
    assert (STREAM_STATES[stream.state] if stream else "-") == after
    assert (read_meets(stream), write_meets(stream)) == (reader, writer)
    assert bystander.read(6) == b"unread"
    if answer.startswith("GOAWAY"):
        assert said == [f"GOAWAY {BYSTANDER} 1"]
        assert bench.core.ledger.state == CLOSING
        assert bench.core.reason is not None
        assert (bench.core.reason.code, bench.core.reason.by_peer) == (1, False)
        assert error(bystander.failure()) == "ProtocolError:1"
    else:
        assert said == ([] if answer == "-" else [answer.replace(":", f" {stream_id} ")])
        assert bench.core.ledger.state == RUNNING
        bench.check_echo(bystander)


def test_the_table_has_a_row_for_every_pair_and_no_other() -> None:
    states = ("unknown", "open", "local-done", "remote-done", "closed", "left", "reset", "refused")
    sides = [f"{side} {state}" for side in ("local", "remote") for state in states]
    assert set(TABLE) == {*sides, "local idle"}
    for state in TABLE:
        assert list(expected(state)) == list(FRAMES)
