"""The tunnels that `tunnel_commands` compares: how both ends of each are started."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .contenders import GO_BINARY, ROOT, build_go
from .processes import make_certificate

LOCAL = "127.0.0.1"
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
BORE_PORT = 7835  # it has no other
# Where `make bench` has cargo put programs, and where Debian has sshd.
PATH = os.pathsep.join(
    (str(ROOT / ".venv-bench/tools/bin"), os.environ.get("PATH", ""), "/usr/sbin")
)
ROOM = {"RUST_LOG": "warn", "NO_COLOR": "1"}


@dataclass(frozen=True)
class Tunnel:
    """A running tunnel.

    Attributes:
        port: where the service is reached through it.
        ends: the processes of its server and of its client.
    """

    port: int
    ends: tuple[int, int]

    def used(self) -> tuple[float, list[int]]:
        """Return the processor time of both ends in seconds, and the memory of each in bytes."""
        time_used, memory = 0.0, []
        for root in self.ends:
            resident = 0
            for number in family(root):
                with contextlib.suppress(OSError):  # it has just ended
                    folder = Path(f"/proc/{number}")
                    fields = (folder / "stat").read_text().rpartition(")")[2].split()
                    time_used += (int(fields[11]) + int(fields[12])) / TICK
                    resident += int((folder / "statm").read_text().split()[1]) * PAGE
            memory.append(resident)
        return time_used, memory


def family(root: int) -> list[int]:
    """Return a process and its descendants."""
    found = [root]
    for number in found:
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{number}/task/{number}/children").read_text()
            found += map(int, children.split())
    return found


Run = Callable[[int, Path], contextlib.AbstractContextManager[Tunnel]]


@dataclass(frozen=True)
class Contender:
    """A tunnel that can be started.

    Attributes:
        name: what the table calls it.
        run: starts it for a service's port, with a folder of its own for keys and files.
        missing: why it is left out, "" if it is not.
    """

    name: str
    run: Run
    missing: str = ""


def find_contenders(compiled_python: str | None) -> list[Contender]:
    """Return every tunnel, with the reason where one can't take part.

    Args:
        compiled_python: an interpreter whose muxado is the compiled build, None for none.
    """
    no_build = "no compiled build is given (--python)"
    if compiled_python is not None:
        no_build = _wrong_build(compiled_python, "compiled")
    no_ssh = _lacking("ssh", "sshd", "ssh-keygen")
    no_asyncssh = _lacking("ssh-keygen")
    if importlib.util.find_spec("asyncssh") is None:
        no_asyncssh = "asyncssh is not installed"
    no_go = build_go()
    return [
        Contender("Go yamux, TLS", _go("yamux"), no_go),
        Contender("muxado, compiled", _ours(compiled_python or ""), no_build),
        Contender("muxado, pure", _ours(sys.executable), _wrong_build(sys.executable, "pure")),
        Contender("OpenSSH -R", _openssh, no_ssh),
        Contender("rathole, Noise", _rathole, _lacking("rathole")),
        Contender("bore, not encrypted", _bore, _lacking("bore") or _held(BORE_PORT)),
        Contender("asyncssh", _asyncssh, no_asyncssh),
        Contender("Go x/crypto/ssh, TLS", _go("ssh"), no_go),
    ]


def _lacking(*programs: str) -> str:
    missing = [each for each in programs if shutil.which(each, path=PATH) is None]
    return f"{', '.join(missing)} is not installed" if missing else ""


def _wrong_build(python: str, build: str) -> str:
    """Return what is wrong with an interpreter whose muxado is to be of a build, or ""."""
    command = [python, "-m", "muxado", "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return "" if f"({build}" in said else f"{python} runs {said.strip() or 'no muxado'}"


def _held(port: int) -> str:
    try:
        with socket.create_server((LOCAL, port)):
            return ""
    except OSError as exc:
        return f"port {port}, the only one that it has, can't be had: {exc}"


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as sock:
        sock.bind((LOCAL, 0))
        return int(sock.getsockname()[1])


@dataclass(frozen=True)
class Program:
    """A running program.

    Attributes:
        pid: its process.
        line: what it has printed when it was ready.
        process: for what it is to be told.
    """

    pid: int
    line: str
    process: subprocess.Popen[str]

    def say(self, text: str) -> None:
        """Write to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def read_line(self) -> str:
        """Return the next line that it prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@contextmanager
def started(*command: str, said: str = "", wanted: str | None = None) -> Iterator[Program]:
    """Run a program while the block runs, from when it has printed a line with what is wanted."""
    program = shutil.which(command[0], path=PATH) or command[0]
    process = subprocess.Popen(
        (program, *command[1:]),
        cwd=ROOT,
        env=os.environ | ROOM,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        running = Program(process.pid, "", process)
        running.say(said)
        line = ""
        while wanted is not None and wanted not in (line := running.read_line()):
            if not line:
                raise RuntimeError(f"{command[0]} has ended")
        yield Program(process.pid, line, process)
    finally:
        process.terminate()
        process.communicate()


def until_open(port: int) -> None:
    """Wait until something listens on a port."""
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection((LOCAL, port)).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _ours(python: str) -> Run:
    """`muxado server` and `muxado expose`, by an interpreter."""

    @contextmanager
    def run(service: int, folder: Path) -> Iterator[Tunnel]:
        muxado = (python, "-m", "muxado")
        port, public, state = free_port(), free_port(), ("--state", str(folder / "server"))
        serve = (*muxado, "server", "--listen", f"{LOCAL}:{port}", *state)
        with started(*serve, wanted="listening on") as server:
            invite = (*muxado, "invite", "bench", "--allow", f"expose:{public}", *state)
            invitation = subprocess.run(invite, capture_output=True, text=True, check=True).stdout
            known = ("--state", str(folder / "client"))
            expose = (*muxado, "expose", str(service), "--to", "-", *known)
            with started(*expose, said=invitation, wanted="tcp ") as client:
                yield Tunnel(public, (server.pid, client.pid))

    return run


def _go(mux: str) -> Run:
    """The small tunnel in Go, `gopeers/tunnel.go`, over TLS."""

    @contextmanager
    def run(service: int, folder: Path) -> Iterator[Tunnel]:
        lacking = make_certificate(folder)
        if lacking:
            raise RuntimeError(lacking)
        go = (str(GO_BINARY), "-mux", mux, "-cell", '{"work": "tunnel-short"}', "-limit", "600")
        go = (*go, "-tls-dir", str(folder))
        with (
            started(*go, "-role", "server", wanted="{") as server,
            started(*go, "-role", "client") as client,
        ):
            ports = json.loads(server.line)
            client.say(f"{ports['port']} {service}\n")
            for end in (server, client):
                end.read_line()  # it has its session
            yield Tunnel(ports["public"], (server.pid, client.pid))

    return run


def _make_ssh_keys(folder: Path) -> None:
    for name in ("host", "user"):
        path = str(folder / name)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)


@contextmanager
def _openssh(service: int, folder: Path) -> Iterator[Tunnel]:
    _make_ssh_keys(folder)
    if os.getuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # it insists on it
    port, public = free_port(), free_port()
    config = folder / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress {LOCAL}\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/user.pub\nStrictModes no\nMaxSessions 1000\n"
    )
    sshd = shutil.which("sshd", path=PATH)
    assert sshd is not None
    with started(sshd, "-D", "-f", str(config)) as server:
        until_open(port)
        options = ("-F", "none", "-N", "-p", str(port), "-i", str(folder / "user"))
        trust = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null")
        forward = ("-R", f"{LOCAL}:{public}:{LOCAL}:{service}")
        with started("ssh", *options, *trust, *forward, LOCAL) as client:
            until_open(public)
            yield Tunnel(public, (server.pid, client.pid))


@contextmanager
def _asyncssh(service: int, folder: Path) -> Iterator[Tunnel]:
    _make_ssh_keys(folder)
    port, public = free_port(), free_port()
    peer = (sys.executable, "-m", "benchmarks.peers.asyncssh_tunnel")
    ports = (str(port), str(public), str(service))
    with (
        started(*peer, "server", str(folder), str(port), wanted="ready") as server,
        started(*peer, "client", str(folder), *ports, wanted="ready") as client,
    ):
        yield Tunnel(public, (server.pid, client.pid))


@contextmanager
def _rathole(service: int, folder: Path) -> Iterator[Tunnel]:
    made = subprocess.run(
        [shutil.which("rathole", path=PATH) or "rathole", "--genkey"],
        capture_output=True,
        text=True,
        check=True,
    )
    private, public_key = [line for line in made.stdout.splitlines() if line and ":" not in line]
    port, public = free_port(), free_port()
    noise = '[{0}.transport]\ntype = "noise"\n[{0}.transport.noise]\n{1} = "{2}"\n'
    token = 'default_token = "benchmark"\n'
    (folder / "server.toml").write_text(
        f'[server]\nbind_addr = "{LOCAL}:{port}"\n{token}'
        + noise.format("server", "local_private_key", private)
        + f'[server.services.bench]\nbind_addr = "{LOCAL}:{public}"\n'
    )
    (folder / "client.toml").write_text(
        f'[client]\nremote_addr = "{LOCAL}:{port}"\n{token}'
        + noise.format("client", "remote_public_key", public_key)
        + f'[client.services.bench]\nlocal_addr = "{LOCAL}:{service}"\n'
    )
    with started("rathole", str(folder / "server.toml")) as server:
        until_open(port)
        with started("rathole", str(folder / "client.toml")) as client:
            until_open(public)
            yield Tunnel(public, (server.pid, client.pid))


@contextmanager
def _bore(service: int, folder: Path) -> Iterator[Tunnel]:
    public = free_port()
    with started("bore", "server", "--bind-addr", LOCAL) as server:
        until_open(BORE_PORT)
        expose = ("bore", "local", str(service), "--to", LOCAL, "--port", str(public))
        with started(*expose, "--local-host", LOCAL) as client:
            until_open(public)
            yield Tunnel(public, (server.pid, client.pid))
