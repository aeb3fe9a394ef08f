"""What may import what: the layers of docs/architecture.md, read from the sources."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import muxado

SOURCE = Path(muxado.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

# What the core and the wire formats may take from Python's library: nothing that does I/O, waits,
# or knows the time.
WITHOUT_IO = {
    "__future__",
    "collections",
    "contextlib",
    "dataclasses",
    "heapq",
    "itertools",
    "math",
    "re",
    "struct",
    "typing",
}


def package(path: Path) -> list[str]:
    return ["muxado", *path.relative_to(SOURCE).parts[:-1]]


def imported(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports, those for types alone too, by their full names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package(path)[: len(package(path)) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            folder = SOURCE.joinpath(*module.split(".")[1:])
            for name in node.names:
                inner = folder / f"{name.name}.py"
                yield f"{module}.{name.name}" if inner.exists() else module


def test_the_core_does_no_io_and_the_wire_formats_know_only_errors() -> None:
    for layer, allowed in (
        ("wire", ("muxado.wire", "muxado.errors")),
        ("core", ("muxado.core", "muxado.wire", "muxado.errors", "muxado.config")),
    ):
        for path in (SOURCE / layer).glob("*.py"):
            for name in imported(path):
                inside = name.startswith("muxado")
                good = name.startswith(allowed) if inside else name.split(".")[0] in WITHOUT_IO
                assert good, f"{layer}/{path.name} imports {name}"


def test_nothing_outside_the_core_imports_its_insides() -> None:
    for path in FILES:
        if path.parent != SOURCE / "core":
            for name in imported(path):
                assert not name.startswith("muxado.core."), f"{path.name} imports {name}"


def test_what_a_session_s_parts_know_is_only_looked_at_outside_the_core() -> None:
    for path in FILES:
        if path.parent != SOURCE / "core":
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
                    part = node.value.attr in ("ledger", "table", "closing", "liveness")
                    bad = part and isinstance(node.ctx, ast.Store)
                    assert not bad, f"{path.name} stores {ast.unparse(node)}"


def test_the_modules_of_the_core_import_each_other_in_one_direction() -> None:
    graph = {
        f"muxado.core.{path.stem}": {
            name for name in imported(path) if name.startswith("muxado.core.")
        }
        for path in (SOURCE / "core").glob("*.py")
        if path.stem != "__init__"
    }
    order = [name.rpartition(".")[2] for name in TopologicalSorter(graph).static_order()]
    assert order.index("ledger") < order.index("window") < order.index("stream")
    assert order.index("stream") < order.index("stream_table") < order.index("sender")
    assert order.index("sender") < order.index("closing") < order.index("receiver")
    assert order[-1] == "session"


def test_adapters_reach_for_no_private_core() -> None:
    for folder in ("adapters", "carriers"):
        for path in (SOURCE / folder).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                private = isinstance(node, ast.Attribute) and node.attr == "_core"
                assert not private, f"{folder}/{path.name} uses _core"


def test_an_import_of_what_waits_is_found() -> None:
    assert {"socket", "time", "asyncio", "threading"} <= sys.stdlib_module_names - WITHOUT_IO
