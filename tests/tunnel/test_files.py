"""Small files that several processes share: whole or as they were, and for one user."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from muxado import UsageError
from muxado.tunnel.files import locked, make_folder, read_json, write_file, write_json

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other rights, and no flock")


def test_what_was_written_is_read_back_and_no_other_file_is_left(tmp_path: Path) -> None:
    path = make_folder(tmp_path / "deep" / "folder") / "state.json"
    assert read_json(path) == {}
    for value in ({"a": [1, "ä"]}, {"b": None}):
        write_json(path, value)
        assert read_json(path) == value
    assert list(path.parent.iterdir()) == [path]
    make_folder(path.parent)


@posix
def test_only_this_user_can_look_into_them(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "folder")
    write_file(folder / "secret", b"x")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "secret").stat().st_mode & 0o777 == 0o600


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    (path / "occupied").mkdir(parents=True)
    with pytest.raises(OSError, match="file"):
        write_file(path, b"x")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", [b"{", b"[]", b"7", b"\xff"])
def test_a_damaged_file_is_named(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(text)
    with pytest.raises(UsageError, match=r"state\.json is damaged"):
        read_json(path)


ADD_ONE = """
import sys
from pathlib import Path
from muxado.tunnel.files import locked, read_json, write_json
folder = Path(sys.argv[1])
for _ in range(20):
    with locked(folder):
        state = read_json(folder / "state.json")
        write_json(folder / "state.json", {"count": state.get("count", 0) + 1})
"""


@posix
def test_processes_that_change_a_file_lose_no_change(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ADD_ONE, str(tmp_path)]
    with locked(tmp_path):
        processes = [subprocess.Popen(command, env=os.environ) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert read_json(tmp_path / "state.json") == {"count": 40}
