"""Tests mirror the sources: each module has a test file of its name, or a place in the table.

So who changes `muxado/core/stalls.py` finds its tests in `tests/core/test_stalls.py`. Those of
front ends may have the front end's name too, as `tests/sync/test_sync_dialer.py` has.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import muxado

SOURCE = Path(muxado.__file__).parent
TESTS = Path(__file__).parent
INTEROP = TESTS.parent / "interop"

# Modules whose doing is seen best elsewhere: for each test file that has some, `package: module
# module; package: ...`, where `.` is muxado itself. A module that has a test file of its own has
# no place here.
ELSEWHERE = {
    "test_front_end": ".: base_session",
    "test_redial": ".: base_dialer",
    "contract/test_without_waiting": ".: base_stream",
    "contract/test_streams": "asyncio: driver links; sync: driver link; trio: driver",
    "contract/test_sessions": "asyncio: stream_handlers; sync: stream_handlers workers;"
    " trio: block",
    "contract/test_listening": "asyncio: acceptor listening; sync: acceptor; trio: acceptor",
    "asyncio/test_connecting": "asyncio: reaching; sync: connecting; trio: connecting",
    "asyncio/test_transport_endings": "asyncio: protocol_streams transport",
    "sync/test_sync_stream": "sync: bridge socket_calls",
    "adapters/test_asgi": "adapters: hypercorn uvicorn",
    "adapters/test_draining": "adapters: _idle",
    "adapters/test_http_threads": "adapters: http_client socketserver",
    "adapters/test_httpx": "adapters: httpcore",
    "adapters/test_httpx_by_name": "cluster: httpx",
    "adapters/test_cluster_prometheus": "cluster: prometheus",
    "adapters/test_requests": "adapters: urllib3",
    "carriers/test_commands": ".: commands stdio; asyncio: command_link stdio;"
    " sync: command_socket stdio; trio: command_stream stdio",
    "carriers/test_proxies": ".: proxies",
    "carriers/test_tls_proxies": ".: secured_socket; asyncio: proxied",
    "carriers/test_contract": "carriers: _pump aiohttp asgi",
    "carriers/test_websockets": "carriers: errors; carriers/websockets: _asyncio _conversation"
    " _handshake",
    "carriers/front_ends/test_ends": "carriers/websockets: _channel sync trio",
    "cli/test_command": ".: build version; cli: app loop",
    "cli/test_demo": "cli: demo_protocol demo_server",
    "cluster/test_directory": "cluster: claims memory",
    "cluster/test_node": "cluster: control credentials finding holdings incoming member peers"
    " registration stats",
    "cluster/test_passing_on": "cluster: outgoing",
    "interop/test_directories": "cluster: nats redis",
    "tunnel/test_commands": "cli: options tunnel tunnel_client tunnel_jobs tunnel_server"
    " tunnel_status; tunnel: operating",
    "tunnel/test_server_command": "cli: workers; tunnel: health prometheus",
    "tunnel/test_state": "tunnel: invitations pins",
    "tunnel/test_settings": "tunnel: rights_file",
    "tunnel/test_fleet": "tunnel: authority",
    "tunnel/test_limits": "tunnel: arrivals denials",
    "tunnel/test_jobs": "tunnel: targets",
    "tunnel/test_roads": "tunnel: web",
    "tunnel/test_tunnel": "tunnel: client clients exposing exposures forwarding messages offers"
    " server uses",
}


def places() -> Iterator[tuple[str, str]]:
    """Yield the table's test files and modules, as `core/stalls`."""
    for test, line in ELSEWHERE.items():
        for part in line.split(";"):
            package, _, names = part.strip().partition(": ")
            for name in names.split():
                yield test, name if package == "." else f"{package}/{name}"


def own_tests(module: str) -> list[Path]:
    """Return the test files that bear a module's name."""
    package, _, name = module.rpartition("/")
    folder = TESTS / package
    stem = name.lstrip("_")
    names = (f"test_{stem}.py", f"test_{Path(package).name}_{stem}.py")
    return [folder / each for each in names if (folder / each).exists()]


MODULES = [
    path.relative_to(SOURCE).with_suffix("").as_posix()
    for path in sorted(SOURCE.rglob("*.py"))
    if path.name not in ("__init__.py", "__main__.py")
]


def test_each_module_has_a_test_file_of_its_name_or_a_place_in_the_table() -> None:
    listed = [module for _, module in places()]
    lost = [module for module in MODULES if not own_tests(module) and module not in listed]
    assert not lost, (
        f"{lost}: write tests/PACKAGE/test_MODULE.py, or name the module in ELSEWHERE behind the"
        " test file that covers it"
    )


def test_the_table_names_modules_once_that_are_there_and_have_no_test_file_of_their_own() -> None:
    listed = [module for _, module in places()]
    assert len(listed) == len(set(listed))
    assert set(listed) <= set(MODULES)
    assert not [module for module in listed if own_tests(module)]


# What a test file reaches


def source_of(name: str) -> Path | None:
    """Return the file of a module of this project's, None for others."""
    top, _, rest = name.partition(".")
    root = {"muxado": SOURCE, "tests": TESTS, "interop": INTEROP}.get(top)
    if root is None:
        return None
    path = root.joinpath(*rest.split(".")) if rest else root
    for found in (path.with_suffix(".py"), path / "__init__.py"):
        if found.exists():
            return found
    return None


@cache
def imported(path: Path) -> frozenset[Path]:
    """Return the files of this project that a file imports, or runs as a command."""
    root = next(root for root in (SOURCE, TESTS, INTEROP) if path.is_relative_to(root))
    package = [root.name, *path.relative_to(root).parts[:-1]]
    text = path.read_text(encoding="utf-8")
    names = {"muxado.cli.app"} if '"-m", "muxado"' in text else set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {module, *(f"{module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Constant) and str(node.value).startswith("muxado."):
            names.add(str(node.value))  # a module that is run as a program
    found = {source_of(name) for name in names}
    if path.is_relative_to(TESTS):
        found |= {folder / "conftest.py" for folder in path.parents if folder != path}
    return frozenset(each for each in found if each is not None and each.exists())


def reached(path: Path) -> set[Path]:
    """Return all that a file imports, and what that imports in turn."""
    seen = {path}
    left = [path]
    while left:
        for each in imported(left.pop()) - seen:
            seen.add(each)
            left.append(each)
    return seen


@pytest.mark.parametrize("test", ELSEWHERE)
def test_a_test_file_of_the_table_is_there_and_reaches_its_modules(test: str) -> None:
    inside = INTEROP.name not in Path(test).parts
    if not inside and not INTEROP.exists():
        pytest.skip("the source distribution has no interop tests")
    path = (TESTS if inside else TESTS.parent) / f"{test}.py"
    assert path.exists()
    found = reached(path)
    lost = [
        module
        for named, module in places()
        if named == test and SOURCE.joinpath(f"{module}.py") not in found
    ]
    assert not lost, f"nothing that tests/{test}.py imports leads to {lost}"
