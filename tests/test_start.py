"""What a program waits for when it starts: a front end loads itself, and no other one."""

from __future__ import annotations

import subprocess
import sys

import pytest

import muxado
from tests.patience import patience


def loaded_by(*arguments: str) -> set[str]:
    """Return the modules that a new interpreter has loaded once it has run."""
    # Written on one line behind what the program itself prints.
    told = "import atexit, sys; atexit.register(lambda: print('\\n', *sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", f"{told}; {'; '.join(arguments)}"],
        capture_output=True,
        text=True,
        timeout=patience(30),
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split())


OTHERS = {"asyncio", "trio", "muxado.asyncio", "muxado.sync", "muxado.trio"}


@pytest.mark.parametrize(
    ("program", "without"),
    [
        ("import muxado", OTHERS | {"muxado.core", "socket", "ssl"}),
        ("import muxado.core", OTHERS | {"logging", "socket", "ssl"}),
        ("import muxado.sync", OTHERS - {"muxado.sync"} | {"http.client"}),
        ("import muxado; muxado.connect", OTHERS - {"asyncio", "muxado.asyncio"} | {"http.client"}),
    ],
)
def test_only_what_is_asked_for_is_loaded(program: str, without: set[str]) -> None:
    assert loaded_by(program) & without == set()


def test_the_command_tells_its_version_without_a_front_end() -> None:
    pytest.importorskip("click")
    version = "import runpy; sys.argv[1:] = ['--version']"
    loaded = loaded_by(version, "runpy.run_module('muxado', run_name='__main__')")
    assert "muxado.cli.app" in loaded
    assert loaded & OTHERS == set()


def test_every_public_name_is_found_and_listed() -> None:
    assert {name for name in muxado.__all__ if getattr(muxado, name, None) is None} == set()
    assert set(muxado.__all__) <= set(dir(muxado))
    with pytest.raises(AttributeError, match="no attribute 'dial'"):
        muxado.dial  # type: ignore[attr-defined]  # noqa: B018
