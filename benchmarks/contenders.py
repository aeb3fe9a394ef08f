"""The contenders: how each one's server and client processes are started."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from muxado.wire import FORMATS

from .cells import Cell, Who

ROOT = Path(__file__).resolve().parent.parent
GO_DIR = Path(__file__).resolve().parent / "gopeers"
GO_BINARY = GO_DIR / "gopeers"
TUNNEL_MUX = "go-yamux"  # what tunnels in Go are mostly made of


@dataclass(frozen=True)
class Peer:
    """A program that can be a server and a client.

    Attributes:
        name: a short name, for the command line and the JSON.
        title: what tables and plots call it.
        group: ours, fronts (ours too, for threads and trio), wires (ours, on other wires than
            muxado v2's, and over a WebSocket), go, bare or slow.
        command: how it is started, without the role and the work.
        versions: what it says about itself.
        missing: why it can't take part, "" if it can.
        needs_tls: whether it uses TLS in every cell.
    """

    name: str
    title: str
    group: str
    command: tuple[str, ...]
    versions: tuple[tuple[str, str], ...] = ()
    missing: str = ""
    needs_tls: bool = False


@dataclass(frozen=True)
class Contender:
    """Two programs that talk to each other, mostly one with itself."""

    name: str
    title: str
    group: str
    server: Peer
    client: Peer


def _python_peer(
    name: str, title: str, group: str, module: str, *, loop: str = "asyncio", python: str = ""
) -> Peer:
    command = (python or sys.executable, "-m", f"benchmarks.peers.{module}", "--loop", loop)
    return Peer(name, title, group, command, needs_tls=module == "quic")


def find_peers(compiled_python: str | None) -> list[Peer]:
    """Return every peer, with its versions or the reason why it is left out.

    Args:
        compiled_python: an interpreter whose muxado is the compiled build, None for none.
    """
    peers = []
    for build in ("compiled", "pure"):
        for loop in ("uvloop", "asyncio", "threads", "trio"):
            peer = _python_peer(
                f"ours-{build}-{loop}",
                f"muxado Python, {build}, {loop}",
                "ours" if loop in ("uvloop", "asyncio") else "fronts",
                "ours",
                loop=loop,
                python=compiled_python or "" if build == "compiled" else "",
            )
            if build == "compiled" and compiled_python is None:
                peer = replace(peer, missing="no compiled build given (--compiled-python)")
            else:
                peer = _right_build(_ask(peer), build)
            peers.append(peer)
    peers += _wire_peers(peers)
    peers += _go_peers()
    for loop in ("uvloop", "asyncio"):
        title = f"one bare TCP connection, {loop}"
        peers.append(_ask(_python_peer(f"tcp-{loop}", title, "bare", "bare", loop=loop)))
    title = "a TCP connection per request, asyncio"
    peers.append(_ask(_python_peer("tcp-each", title, "slow", "tcp_each")))
    peers.append(_ask(_python_peer("aioquic", "aioquic (QUIC, TLS)", "slow", "quic")))
    peers.append(_ask(_python_peer("grpc-aio", "gRPC aio, raw bytes", "slow", "grpc_aio")))
    peers.append(_ask(_python_peer("libp2p-yamux", "py-libp2p yamux", "slow", "libp2p_yamux")))
    return peers


def _ask(peer: Peer) -> Peer:
    """Have a peer tell its versions, or why it can't run."""
    try:
        answer = subprocess.run(
            [*peer.command, "--about"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return replace(peer, missing=str(exc))
    if answer.returncode:
        lines = answer.stderr.strip().splitlines() or ["it failed without a word"]
        return replace(peer, missing=lines[-1])
    return replace(peer, versions=tuple(json.loads(answer.stdout).items()))


def _right_build(peer: Peer, build: str) -> Peer:
    running = dict(peer.versions).get("build")
    if peer.missing or running == build:
        return peer
    return replace(peer, missing=f"the muxado of {peer.command[0]} is the {running} build")


def _wire_peers(ours: list[Peer]) -> list[Peer]:
    """Our fastest build on each of the other wires, and over a WebSocket."""
    best = next((peer for peer in ours if not peer.missing), None)
    if best is None:
        return []
    over_websocket = replace(
        best,
        name="ours-websocket",
        title=f"{best.title}, over a WebSocket",
        group="wires",
        command=(*best.command, "--websocket"),
    )
    on_wires = [
        replace(
            best,
            name=f"ours-wire-{wire}",
            title=f"{best.title}, {FORMATS[wire].rules.name}",
            group="wires",
            command=(*best.command, "--wire", wire),
        )
        for wire in FORMATS
        if wire != "muxado-v2"
    ]
    return [over_websocket, *on_wires]


def _go_peers() -> list[Peer]:
    missing = build_go()
    peers = []
    for mux, title in (
        ("muxado", "muxado v2"),
        ("yamux", "yamux"),
        ("smux", "smux v2"),
        ("smux-v1", "smux v1"),
    ):
        command = (str(GO_BINARY), "-mux", mux)
        peer = Peer(f"go-{mux}", f"Go {title}", "go", command, missing=missing)
        peers.append(peer if missing else _ask(peer))
    return peers


def build_go() -> str:
    """Build the Go program; return why that can't be, or ""."""
    if shutil.which("go") is None:
        return "no Go toolchain found"
    try:
        built = subprocess.run(
            ["go", "build", "-o", str(GO_BINARY), "."],
            cwd=GO_DIR,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"the Go program did not build: {exc}"
    if built.returncode:
        return f"the Go program did not build: {built.stderr.strip().splitlines()[-1:]}"
    return ""


def contenders_for(cell: Cell, peers: list[Peer]) -> list[Contender]:
    """Return who takes part in a cell, of the peers that can."""
    able = [peer for peer in peers if not peer.missing]
    if cell.who in (Who.LINK, Who.QUICK_LINK):
        return _link_contenders(able, all_ways=cell.who is Who.LINK)
    ours = [peer for peer in able if peer.group == "ours"]
    go = [peer for peer in able if peer.group == "go"]
    bare = [peer for peer in able if peer.group == "bare"]
    slow = [peer for peer in able if peer.group == "slow"]
    if cell.fronts or cell.is_tunnel:
        ours += [peer for peer in able if peer.group == "fronts"]
    if cell.wires:
        ours += [peer for peer in able if peer.group == "wires"]
    else:
        go = [peer for peer in go if peer.name != "go-smux-v1"]
    if cell.work.work == "requests" or (cell.work.work == "ping" and cell.work.concurrency):
        bare = []  # one connection has no streams to open, or to ping beside
    chosen = {
        Who.MAIN: [*ours, *go, *bare],
        Who.HEADLINE: [*ours, *go, *bare, *slow],
        Who.TLS: [*ours, *go[:1]],
        Who.MEMORY: [*_one_loop(ours), *go],
        Who.BEST: ours[:1],
        # The load on it is a Go program too.
        Who.TUNNEL: [*ours, *(peer for peer in go if peer.name == TUNNEL_MUX)] if go else [],
        Who.QUICK: [*_two_builds(ours), *go[:1], *bare],
    }[cell.who]
    return [Contender(peer.name, peer.title, peer.group, peer, peer) for peer in chosen]


def _one_loop(ours: list[Peer]) -> list[Peer]:
    """Each build once: the loop makes no difference to a stream's memory."""
    uvloop = [peer for peer in ours if peer.name.endswith("-uvloop")]
    return uvloop or ours


def _two_builds(ours: list[Peer]) -> list[Peer]:
    """The fastest build, and the pure one on asyncio."""
    return [*ours[:1], *(peer for peer in ours[1:] if peer.name == "ours-pure-asyncio")]


def _link_contenders(able: list[Peer], *, all_ways: bool) -> list[Contender]:
    """Ours and Go muxado v2 with each other, the client sending; and the line by itself."""
    ours = next((peer for peer in able if peer.group == "ours"), None)
    go = next((peer for peer in able if peer.name == "go-muxado"), None)
    bare = next((peer for peer in able if peer.group == "bare"), None)
    pairs = []
    if bare is not None:
        pairs.append(Contender("link-alone", "the link alone (bare TCP)", "bare", bare, bare))
    if ours is not None:
        pairs.append(Contender("ours-ours", "ours to ours", "ours", ours, ours))
    if ours is not None and go is not None:
        pairs.append(Contender("go-ours", "Go muxado v2 to ours", "ours", ours, go))
        if all_ways:
            pairs.append(Contender("ours-go", "ours to Go muxado v2", "go", go, ours))
    if go is not None and all_ways:
        pairs.append(Contender("go-go", "Go muxado v2 to itself", "go", go, go))
    return pairs
