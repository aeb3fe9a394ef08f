"""Each number of a session is stored by one module: read from the sources."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import muxado.core
from muxado.config import Config
from muxado.core import CoreSession
from muxado.errors import SessionClosed

CORE = Path(muxado.core.__file__).parent
TREES = {path.stem: ast.parse(path.read_text()) for path in sorted(CORE.glob("*.py"))}

CONTAINERS = {"dict", "list", "set", "deque", "OrderedDict"}
CHANGES = {"append", "clear", "extend", "insert", "pop", "popitem", "popleft", "remove", "update"}

# What a part is told when it is put together.
WIRING = {("session", "on_growth")}
# The ledger's list of waiters is there to be added to.
SHARED = {("stream_state", "wakes")}


def table(name: str) -> dict[str, str]:
    """Return a table of the ledger's head: which module stores each field of a class."""
    head = ast.get_docstring(TREES["ledger"]) or ""  # the compiled module has none
    part = head.split(f"`{name}`,", 1)[1].split("\n\n", 2)[1]
    return dict(re.findall(r"^ {4}(\w+) +([\w-]+)", part, re.MULTILINE))


def slots(name: str) -> set[str]:
    """Return the fields that a class of the ledger has."""
    (found,) = (
        node
        for node in TREES["ledger"].body
        if isinstance(node, ast.ClassDef) and node.name == name
    )
    return declared(found)


SESSION, STREAM = table("Ledger"), table("StreamLedger")


def declared(tree: ast.AST) -> set[str]:
    """Return the fields that the classes of a module declare."""
    return {
        constant.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and any(
            isinstance(target, ast.Name) and target.id == "__slots__" for target in node.targets
        )
        for constant in ast.walk(node.value)
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str)
    }


def containers() -> dict[str, set[str]]:
    """Return which modules have a field of a name that holds a container."""
    found: dict[str, set[str]] = {}
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Attribute):
                kind = node.annotation
                kind = kind.value if isinstance(kind, ast.Subscript) else kind
                if isinstance(kind, ast.Name) and kind.id in CONTAINERS:
                    found.setdefault(node.target.attr, set()).add(module)
    return found


def changed(tree: ast.Module) -> Iterator[ast.Attribute]:
    """Yield the attributes that a module stores, or whose container it changes."""
    names = containers()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node
            continue
        inner: ast.expr | None = None
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            inner = node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            inner = node.func.value if node.func.attr in CHANGES else None
        if isinstance(inner, ast.Attribute) and inner.attr in names:
            yield inner


def strange(module: str, tree: ast.Module) -> Iterator[str]:
    """Yield what a module changes and another one owns."""
    own = declared(tree)
    for node in changed(tree):
        holder = ast.unparse(node.value)
        if holder == "self" or (module, node.attr) in WIRING | SHARED:
            continue
        if holder.split(".")[-1] in ("ledger", "_ledger"):
            owner = SESSION.get(node.attr)
        else:
            owner = STREAM.get(node.attr, module if node.attr in own else None)
        if owner != module:
            yield f"{module}.py:{node.lineno} stores {ast.unparse(node)}, which is {owner}'s"


def test_no_part_stores_a_field_of_another() -> None:
    found = [line for module, tree in TREES.items() for line in strange(module, tree)]
    assert not found, "\n".join(found)


def test_a_store_into_another_part_is_found() -> None:
    bad = ast.parse("stream.recv_credit = 1; self._ledger.state = 2; self._table.streams[3] = 4")
    assert len(list(strange("sender", bad))) == 3


def test_the_tables_name_every_field_and_no_other() -> None:
    assert set(SESSION) == slots("Ledger")
    assert set(STREAM) == slots("StreamLedger")
    assert len(SESSION) <= 15
    assert len(STREAM) <= 15


def test_a_session_that_goes_on_has_no_other_error_than_that_it_is_closed() -> None:
    """A call that was cut off may have closed the session and not said why yet."""
    core = CoreSession(client=True, config=Config(), now=0.0)
    failure = core.ledger.failure()
    assert type(failure) is SessionClosed
    assert (str(failure), failure.reason) == ("the session is closed", None)


def test_what_one_part_alone_reads_is_no_field_of_the_ledger() -> None:
    outside = {
        str(path): ast.parse(path.read_text())
        for path in CORE.parent.rglob("*.py")
        if path.parent != CORE
    }
    for field, writer in SESSION.items():
        readers = {
            module
            for module, tree in (TREES | outside).items()
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and node.attr == field
            and isinstance(node.ctx, ast.Load)
            and ast.unparse(node.value).split(".")[-1] in ("ledger", "_ledger")
        }
        if field not in ("error_class", "events"):  # the ledger's own methods read those
            assert len(readers - {writer}) >= 2, (field, readers)
