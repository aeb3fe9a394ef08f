"""The `muxado` command, as a user runs it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import pytest

import muxado
from muxado.build import COMPILED

pytest.importorskip("click")


def run(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "muxado", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def test_version_says_which_build_runs() -> None:
    result = run("--version")
    assert result.returncode == 0
    assert muxado.__version__ in result.stdout
    assert ("compiled" if COMPILED else "pure Python") in result.stdout


BASH = shutil.which("bash")
PROGRAMS = os.path.dirname(sys.executable)
COMPLETION = """
eval "$(_MUXADO_COMPLETE=bash_source muxado)"
complete -p muxado || exit 1
COMP_WORDS=(muxado {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_muxado_completion muxado
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.skipif(BASH is None, reason="bash is not installed")
@pytest.mark.skipif(
    shutil.which("muxado", path=PROGRAMS) is None, reason="the command itself is not installed"
)
@pytest.mark.parametrize(
    ("words", "found"),
    [("exp", "expose"), ("expose --pri", "--private"), ("stat", "status")],
)
def test_bash_completes_commands_and_options(words: str, found: str) -> None:
    assert BASH is not None
    result = subprocess.run(
        [BASH, "--norc", "-c", COMPLETION.format(words=words)],
        env=os.environ | {"PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found in result.stdout.split(), result.stderr


def test_help_teaches() -> None:
    assert "muxado demo" in run("--help").stdout
    assert "--concurrency" in run("demo", "--help").stdout


def test_the_demo_shows_the_main_job() -> None:
    result = run("demo", "--seconds", "0.3", "--concurrency", "100")
    assert result.returncode == 0, result.stderr
    for word in ("requests/s", "p99", "MiB/s", "streams", "connections"):
        assert word in result.stdout
    assert not re.search(r"\x1b\[", result.stdout), "no terminal, no colours"


def test_a_port_in_use_is_a_clear_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = run("demo", "--port", str(taken.getsockname()[1]))
    assert result.returncode == 2
    assert "--port" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_server_that_dies_is_a_clear_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "muxado", "demo", "--seconds", "5"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        while not (found := re.search(r"server: process (\d+)", demo.stdout.readline())):
            assert demo.poll() is None
        while "requests (" not in demo.stdout.readline():  # they have begun
            assert demo.poll() is None
        os.kill(int(found[1]), signal.SIGKILL)
        demo.stdout.read()
        errors = demo.stderr.read()
    assert demo.returncode == 2
    assert errors.startswith("muxado demo: the connection to the server failed")
    assert "Traceback" not in errors


def test_a_bad_option_is_refused() -> None:
    assert run("demo", "--seconds", "100").returncode == 2


def test_the_build_is_the_one_that_was_asked_for() -> None:
    wanted = os.environ.get("MUXADO_BUILD")
    if wanted is None:
        pytest.skip("MUXADO_BUILD says which build the tests should find; it is not set")
    assert ("compiled" if COMPILED else "pure") == wanted
