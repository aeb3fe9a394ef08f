"""No part of the library reaches for the private names of another part's objects."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import muxado

SOURCE = Path(muxado.__file__).parent

# What other libraries keep private, and there is no other way to.
OF_OTHERS = {
    "adapters/aiohttp.py": {"_keepalive_timeout", "_waiter", "_messages"},
    "adapters/grpclib.py": {"_server", "_server_closed_fut"},
    "adapters/http_client.py": {"_GLOBAL_DEFAULT_TIMEOUT", "_CS_IDLE"},
    "adapters/httpx.py": {"_network_backend"},
    "cluster/httpx.py": {"_network_backend"},
    "asyncio/protocol_streams.py": {"_app_transport"},
    "sync/locks.py": {"_is_owned"},
}


def is_own(value: ast.expr) -> bool:
    """Return whether an attribute is one of `self`, of the class, or of a base class."""
    if isinstance(value, ast.Call):
        value = value.func
    return isinstance(value, ast.Name) and value.id in ("self", "cls", "super")


def foreign(tree: ast.Module) -> Iterator[str]:
    """Yield the private names that a module asks of objects but defines none of itself."""
    defined = set()
    asked = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            if is_own(node.value):
                defined.add(node.attr)
            elif not node.attr.startswith("__"):
                asked.append(node.attr)
    return (name for name in asked if name not in defined)


@pytest.mark.parametrize(
    "path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.relative_to(SOURCE).as_posix()
)
def test_a_module_asks_for_no_private_name_of_another(path: Path) -> None:
    name = path.relative_to(SOURCE).as_posix()
    assert set(foreign(ast.parse(path.read_text()))) == OF_OTHERS.get(name, set())


def test_a_foreign_private_name_is_found() -> None:
    tree = ast.parse("class A:\n def f(self, b): self._own = super()._base; b._own; b._theirs")
    assert list(foreign(tree)) == ["_theirs"]
