"""Servers of the system that tests run: each is skipped where it is not installed.

With MUXADO_REQUIRE_PROXIES set, a missing one fails its tests.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.certificates import Tls
from tests.patience import patience

USER, PASSWORD = "somebody", "secret"

TINYPROXY = """
Port {port}
Listen 127.0.0.1
LogFile "{folder}/log"
LogLevel Critical
MaxClients 100
Timeout 600
BasicAuth {user} {password}
"""


def program(name: str) -> str:
    """Return the path of a program, or skip the test."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if found is None:
        assert not os.environ.get("MUXADO_REQUIRE_PROXIES"), f"{name} is not installed"
        pytest.skip(f"{name} is not installed")
    return found


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def running(port: int, *command: str) -> Iterator[None]:
    """Run a server, from when it listens on its port until the block is left."""
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + patience(10)
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None, f"{command[0]} has ended"
                assert time.monotonic() < deadline, f"{command[0]} does not listen"
                time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def tinyproxy(folder: Path, port: int | None = None) -> Iterator[str]:
    """Run a proxy that speaks CONNECT and wants a password; give its URL."""
    port = port or free_port()
    config = folder / "tinyproxy.conf"
    config.write_text(TINYPROXY.format(port=port, folder=folder, user=USER, password=PASSWORD))
    with running(port, program("tinyproxy"), "-d", "-c", str(config)):
        yield f"http://{USER}:{PASSWORD}@127.0.0.1:{port}"


@contextmanager
def microsocks(folder: Path, port: int | None = None) -> Iterator[str]:
    """Run a proxy that speaks SOCKS5 and wants a password; give its URL."""
    port = port or free_port()
    command = [program("microsocks"), "-i", "127.0.0.1", "-p", str(port)]
    with running(port, *command, "-u", USER, "-P", PASSWORD):
        yield f"socks5://{USER}:{PASSWORD}@127.0.0.1:{port}"


TLS_BEFORE = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen front
    bind 127.0.0.1:{port} ssl crt {certificate}
    server one 127.0.0.1:{backend}
"""


@contextmanager
def tinyproxy_by_tls(folder: Path, tls: Tls) -> Iterator[str]:
    """Run a proxy that is reached by TLS, which HAProxy ends; give its URL."""
    port = free_port()
    certificate = folder / "certificate.pem"
    certificate.write_bytes(
        tls.authority.issue_cert("localhost").private_key_and_cert_chain_pem.bytes()
    )
    config = folder / "haproxy.cfg"
    with tinyproxy(folder) as url:
        backend = url.rpartition(":")[2]
        config.write_text(TLS_BEFORE.format(port=port, backend=backend, certificate=certificate))
        with running(port, program("haproxy"), "-db", "-q", "-f", str(config)):
            yield f"https://{USER}:{PASSWORD}@localhost:{port}"


SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
"""


@dataclass
class SshServer:
    """An SSH server that takes one key, and how to reach it."""

    folder: Path
    port: int

    def command(self, remote: str | None, *options: str) -> list[str]:
        """Return the command that logs in and runs another one; of an option the first counts."""
        return [
            *[program("ssh"), "-F", "none", "-o", "BatchMode=yes"],
            *["-o", "StrictHostKeyChecking=yes", "-i", str(self.folder / "user"), *options],
            *["-o", f"UserKnownHostsFile={self.folder / 'known'}", "-o", "LogLevel=ERROR"],
            *["-p", str(self.port), "-l", getpass.getuser(), "127.0.0.1"],
            *([] if remote is None else [remote]),
        ]


@contextmanager
def ssh_server(folder: Path) -> Iterator[SshServer]:
    """Run an SSH server."""
    sshd = program("sshd")
    for name in ("host", "user"):
        make = [program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(make, check=True)
    if os.getuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # it insists on it
    port = free_port()
    key = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known").write_text(f"[127.0.0.1]:{port} {key}\n")
    config = folder / "sshd_config"
    config.write_text(SSHD.format(port=port, folder=folder))
    with running(port, sshd, "-D", "-e", "-o", "LogLevel=ERROR", "-f", str(config)):
        yield SshServer(folder, port)
