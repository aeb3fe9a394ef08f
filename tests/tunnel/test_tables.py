"""Files of TOML: each mistake is named by file and key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from muxado import UsageError
from muxado.tunnel.tables import Table


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], Table]:
    """Return what reads a file with a text."""

    def read(text: str) -> Table:
        path = tmp_path / "file.toml"
        path.write_text(text, "utf-8")
        return Table.read(path)

    return read


def test_each_kind_of_value_is_taken_once(read: Callable[[str], Table]) -> None:
    table = read('name = "x"\nport = 7\nlong = 2\nshort = 0.5\non = true\nall = ["a", "b"]\n')
    assert (table.text("name"), table.number("port")) == ("x", 7)
    assert (table.seconds("long"), table.seconds("short")) == (2, 0.5)
    assert (table.flag("on"), table.texts("all")) == (True, ("a", "b"))
    table.finish()


def test_what_is_missing_is_nothing(read: Callable[[str], Table]) -> None:
    table = read("")
    assert (table.text("a"), table.number("b"), table.seconds("c")) == (None, None, None)
    assert (table.flag("d"), table.texts("e"), list(table.tables("f"))) == (False, (), [])
    table.finish()


@pytest.mark.parametrize(
    ("text", "take", "error"),
    [
        ("key = 7", lambda table: table.text("key"), "key: must be a string, not 7"),
        ('key = "7"', lambda table: table.number("key"), "key: must be a whole number, not '7'"),
        ("key = 7.0", lambda table: table.number("key"), "key: must be a whole number, not 7.0"),
        ("key = true", lambda table: table.number("key"), "key: must be a whole number, not True"),
        ("key = true", lambda table: table.seconds("key"), "key: must be a number of seconds"),
        ("key = 1", lambda table: table.flag("key"), "key: must be true or false, not 1"),
        ('key = "a"', lambda table: table.texts("key"), "key: must be a list of strings"),
        ('key = ["a", 2]', lambda table: table.texts("key"), r"key\[1\]: must be a string, not 2"),
        ("key = 1", lambda table: list(table.tables("key")), "key: must be a table, not 1"),
        ("key.a = 1", lambda table: list(table.tables("key")), r"key\.a: must be a table, not 1"),
        ("key = 1", lambda table: table.finish(), "key: is no key that is known here"),
    ],
)
def test_anything_else_is_named_by_file_and_key(
    read: Callable[[str], Table], text: str, take: Callable[[Table], object], error: str
) -> None:
    with pytest.raises(UsageError, match=rf"file\.toml: {error}"):
        take(read(text))


def test_keys_of_inner_tables_are_named_with_their_way(read: Callable[[str], Table]) -> None:
    table = read("[client.db]\nport = 7\nother = 8\n[client.web]\n")
    inner = dict(table.tables("client"))
    assert list(inner) == ["db", "web"]
    assert inner["db"].number("port") == 7
    with pytest.raises(UsageError, match=r"client\.db\.other: is no key .* those are port$"):
        inner["db"].finish()


def test_what_can_not_be_read_is_named(tmp_path: Path, read: Callable[[str], Table]) -> None:
    with pytest.raises(UsageError, match=r"missing\.toml can't be read: "):
        Table.read(tmp_path / "missing.toml")
    with pytest.raises(UsageError, match=r"file\.toml: .*line 2"):
        read("good = 1\nbad =\n")
    (tmp_path / "latin.toml").write_bytes(b'name = "\xe4"')
    with pytest.raises(UsageError, match=r"latin\.toml: "):
        Table.read(tmp_path / "latin.toml")
