"""The tunnel with programs of others at its ends: OpenSSH, nginx, Go; and when something dies."""

from __future__ import annotations

import asyncio
import getpass
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trustme
from tests.patience import patience
from tests.servers import free_port, program, running, ssh_server
from tests.tunnel.commands import TIMEOUT, Commands, on_states, read_line, talk

from muxado.tunnel import Server, ServerState
from muxado.tunnel.server import CONFIG

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals and Unix sockets")

LOCAL = "127.0.0.1"
MIB = 1024 * 1024

NGINX = """
daemon off;
user {user};
pid {folder}/pid;
error_log {folder}/log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/a;
    proxy_temp_path {folder}/b;
    fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d;
    scgi_temp_path {folder}/e;
    server {{
        listen 127.0.0.1:{target} proxy_protocol;
        root {folder}/www;
        location /who {{ return 200 $proxy_protocol_addr:$proxy_protocol_port; }}
    }}
    server {{
        listen 127.0.0.1:{front} ssl;
        ssl_certificate {folder}/front.pem;
        ssl_certificate_key {folder}/front.pem;
        location /mux/ {{
            proxy_pass http://127.0.0.1:{backend};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
        }}
    }}
}}
"""


@pytest.fixture
def commands() -> Iterator[Commands]:
    with on_states() as commands:
        yield commands


@contextmanager
def shouting(port: int = 0) -> Iterator[int]:
    """Run a target that answers at the end of what comes, in capitals; give its port."""
    with socket.create_server((LOCAL, port)) as listening:

        def serve() -> None:
            while True:
                try:
                    sock, _ = listening.accept()
                except OSError:
                    return
                with sock, suppress(ConnectionError):
                    data = b"".join(iter(lambda: sock.recv(65536), b""))  # noqa: B023
                    sock.sendall(data.upper())

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


def until_talks(port: int, said: bytes) -> bytes:
    """Talk to a port as soon as it can be had; return the answer."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            answer = talk(port, said)
        except ConnectionError:
            answer = b""
        if answer:
            return answer
        assert time.monotonic() < deadline
        time.sleep(0.02)


def until_refused(port: int) -> None:
    """Wait until nothing listens on a port."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            socket.create_connection((LOCAL, port)).close()
        except ConnectionRefusedError:
            return
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ssh_goes_through_it_by_a_proxy_command(commands: Commands, tmp_path: Path) -> None:
    with ssh_server(tmp_path) as server:
        commands.server(free_port())
        invitation = commands.invite("laptop", f"forward:{LOCAL}:{server.port}").strip()
        stdio = f"{sys.executable} -m muxado stdio %h:%p --state {commands.client_state}"
        through = ("-o", f"ProxyCommand={stdio} --to {invitation}")
        data = os.urandom(MIB)
        done = subprocess.run(
            server.command("cat; exit 7", *through),
            input=data,
            capture_output=True,
            timeout=TIMEOUT,
        )
        assert done.returncode == 7, done.stderr
        assert done.stdout == data
        # The invitation is spent now; and what there is no right to, ssh says in its own way.
        elsewhere = server.command(None, *through, "-p", "1")
        refused = subprocess.run(elsewhere, capture_output=True, timeout=TIMEOUT)
        assert refused.returncode == 255
        assert b"the server gives no right to it" in refused.stderr


def test_nginx_is_the_target_and_stands_before_the_server(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nginx = program("nginx")
    target, front, backend, public = free_port(), free_port(), free_port(), free_port()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        tmp_path / "front.pem"
    )
    (tmp_path / "www").mkdir(mode=0o755)
    data = os.urandom(8 * MIB)
    (tmp_path / "www" / "file").write_bytes(data)
    config = tmp_path / "nginx.conf"
    places = {"target": target, "front": front, "backend": backend}
    config.write_text(NGINX.format(folder=tmp_path, user=getpass.getuser(), **places))
    with running(front, nginx, "-e", f"{tmp_path}/log", "-c", str(config)):
        listen = ("--listen", f"{LOCAL}:{free_port()}", "--websocket", f"ws://{LOCAL}:{backend}")
        server = commands.start("server", *listen, "--state", str(commands.server_state))
        assert "listening on" in read_line(server)
        invited = commands.run(
            *("invite", "laptop", "--allow", f"expose:{public}"),
            *("--public", f"wss://localhost:{front}/mux/"),
        ).stdout
        assert "#" not in invited
        state = ("--state", str(commands.client_state))
        expose = ("expose", f"web={LOCAL}:{target}", "--proxy-protocol", *state)
        untrusting = commands.start(*expose, "--once", "--to", invited.strip())
        _, said = untrusting.communicate()
        assert untrusting.returncode == 3
        assert "CERTIFICATE_VERIFY_FAILED" in said
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        client = commands.start(*expose, "--to", "-", said=invited)
        assert read_line(client) == f"tcp localhost:{public}  ->  {LOCAL}:{target}\n"
        with urllib.request.urlopen(f"http://{LOCAL}:{public}/file", timeout=TIMEOUT) as answer:
            assert hashlib.sha256(answer.read()).digest() == hashlib.sha256(data).digest()
        with socket.create_connection((LOCAL, public), timeout=TIMEOUT) as sock:
            sock.sendall(b"GET /who HTTP/1.0\r\n\r\n")
            told = b"".join(iter(lambda: sock.recv(65536), b""))
            assert told.endswith("{}:{}".format(*sock.getsockname()).encode())


def test_a_go_program_is_the_target(commands: Commands, tmp_path: Path) -> None:
    go = shutil.which("go")
    if go is None:
        pytest.skip("the Go toolchain is missing")
    built = tmp_path / "target"
    source = Path(__file__).parent / "target"
    subprocess.run([go, "build", "-o", built, "."], cwd=source, check=True, timeout=patience(300))
    public = free_port()
    with subprocess.Popen([built], stdout=subprocess.PIPE, text=True) as target:
        try:
            assert target.stdout is not None
            port = target.stdout.readline().strip()
            commands.server(free_port())
            invitation = commands.invite("laptop", f"expose:{public}")
            state = ("--state", str(commands.client_state))
            client = commands.start("expose", port, "--to", "-", *state, said=invitation)
            assert read_line(client)
            data = os.urandom(4 * MIB)
            url = f"http://{LOCAL}:{public}"
            results: list[str] = []

            def ask() -> None:
                with urllib.request.urlopen(f"{url}/hash", data, timeout=TIMEOUT) as answer:
                    results.append(answer.read().decode())

            threads = [threading.Thread(target=ask) for _ in range(8)]
            for thread in threads:
                thread.start()
            with urllib.request.urlopen(f"{url}/bytes/{4 * MIB}", timeout=TIMEOUT) as answer:
                assert answer.read() == b"muxado!\n" * (MIB // 2)
            for thread in threads:
                thread.join()
            assert results == [hashlib.sha256(data).hexdigest()] * 8
        finally:
            target.kill()


def test_forwards_are_back_soon_after_a_server_that_was_killed(commands: Commands) -> None:
    port, public = free_port(), free_port()
    with shouting() as target:
        server = commands.server(port)
        invitation = commands.invite("laptop", f"expose:{public}", "private:db", "reach:db")
        state = ("--state", str(commands.client_state))
        client = commands.start("expose", str(target), "--to", "-", *state, said=invitation)
        assert read_line(client)
        assert talk(public, b"there") == b"THERE"
        server.kill()
        server.wait()
        until_refused(public)
        time.sleep(2.5)  # it is away for longer than the longest pause between tries
        commands.server(port)
        back = time.monotonic()
        assert until_talks(public, b"again") == b"AGAIN"
        assert time.monotonic() - back < patience(4)  # 2 s at most, and what dialling takes
        assert client.poll() is None


@pytest.mark.anyio
async def test_the_ports_of_a_frozen_client_close_and_open_again(
    commands: Commands, tmp_path: Path
) -> None:
    public = free_port()
    quick = replace(CONFIG, ping_interval=0.5, ping_timeout=1.0)
    async with Server(ServerState(tmp_path), LOCAL, 0, config=quick) as server:
        invitation = server.invite("laptop", LOCAL, (f"expose:{public}",))
        state = ("--state", str(commands.client_state))
        with shouting() as target:
            client = commands.start(
                "expose", str(target), "--to", "-", *state, said=f"{invitation}\n"
            )
            assert await asyncio.to_thread(read_line, client)
            client.send_signal(signal.SIGSTOP)
            stopped = time.monotonic()
            await asyncio.to_thread(until_refused, public)
            assert time.monotonic() - stopped < patience(3)
            client.send_signal(signal.SIGCONT)
            assert await asyncio.to_thread(until_talks, public, b"back") == b"BACK"
            client.kill()


@contextmanager
def network_namespaces() -> Iterator[tuple[list[str], list[str]]]:
    """Make two network namespaces with a cable between; give the commands that run in each."""
    ip = shutil.which("ip", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if ip is None or os.geteuid() != 0:
        pytest.skip("two network namespaces need root and ip (iproute2)")
    names = [f"muxado-{os.getpid()}-{side}" for side in "ab"]
    try:
        for name in names:
            made = subprocess.run([ip, "netns", "add", name], capture_output=True, text=True)
            if made.returncode:
                pytest.skip(f"no network namespace can be made here: {made.stderr.strip()}")
        a, b = names
        cable = ["link", "add", "muxa", "netns", a, "type", "veth", "peer", "muxb", "netns", b]
        made = subprocess.run([ip, *cable], capture_output=True, text=True)
        if made.returncode:
            pytest.skip(f"no veth pair can be made here: {made.stderr.strip()}")
        for name, device, address in ((a, "muxa", "10.99.0.1/24"), (b, "muxb", "10.99.0.2/24")):
            for words in (
                ["addr", "add", address, "dev", device],
                ["link", "set", device, "up"],
                ["link", "set", "lo", "up"],
            ):
                subprocess.run([ip, "-n", name, *words], check=True)
        yield [ip, "netns", "exec", a], [ip, "netns", "exec", b]
    finally:
        for name in names:
            subprocess.run([ip, "netns", "delete", name], capture_output=True)


ASK = """
import socket, sys
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3]))
sock.sendall(b"through")
sock.shutdown(socket.SHUT_WR)
print(b"".join(iter(lambda: sock.recv(100), b"")).decode())
"""


def test_between_two_networks_only_the_named_sources_reach_a_service(commands: Commands) -> None:
    """The target listens on the loopback of the one network; callers come from the other."""
    with network_namespaces() as (near, far):
        server = commands.start(
            *("server", "--listen", "10.99.0.1:7443", "--state", str(commands.server_state)),
            within=near,
        )
        assert "listening on" in read_line(server)
        invitation = commands.invite("laptop")
        web = commands.start_program(*far, sys.executable, "-u", "-c", SHOUT)
        target = read_line(web).strip()
        state = ("--state", str(commands.client_state))
        ports = []
        for name, source in (("open", "10.99.0.0/24"), ("closed", "10.99.0.77")):
            client = commands.start(
                *("expose", f"{name}={target}", "--from", source, "--to", invitation.strip()),
                *state,
                within=far,
            )
            line = read_line(client)
            ports.append(line.split("  ->  ")[0].rpartition(":")[2])
        results = [
            subprocess.run(
                [*near, sys.executable, "-c", ASK, "10.99.0.1", port, str(TIMEOUT)],
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
            )
            for port in ports
        ]
        assert results[0].stdout == "THROUGH\n", results[0].stderr
        assert "ConnectionResetError" in results[1].stderr


SHOUT = """
import socket
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1])
while True:
    sock, _ = listening.accept()
    with sock:
        sock.sendall(b"".join(iter(lambda: sock.recv(100), b"")).upper())
"""
