"""The Go peers' programs, and the ways to meet one."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from tests.patience import patience, scale_timeout

from .gopeer import BUILD_TIMEOUT, RELEASES, GoToolchainMissing, build
from .meeting import USUAL_WAYS, Meeting, Tls, Way

# Seconds that a test may take before it counts as hanging; the mark `patience` says otherwise.
PATIENCE = 20

PROGRAMS = pytest.StashKey[dict[str, Path] | Exception]()
MEETING = pytest.StashKey[Meeting]()

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before pytest-timeout reads its limit
def pytest_configure(config: pytest.Config) -> None:
    scale_timeout(config)
    config.addinivalue_line("markers", "interop: needs the Go toolchain")
    config.addinivalue_line("markers", "big: moves much data, or does something a thousand times")
    config.addinivalue_line("markers", "slow: takes minutes; runs only if asked for by -m slow")
    config.addinivalue_line("markers", "patience(seconds): may take longer than the others")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow" not in str(config.getoption("markexpr")):
        skip = pytest.mark.skip(reason="runs only if asked for by -m slow")
        for item in items:
            if item.get_closest_marker("slow") is not None:
                item.add_marker(skip)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests of this folder, and bound the time of each."""
    if HERE not in item.path.parents or not isinstance(item, pytest.Function):
        return
    item.add_marker(pytest.mark.interop)
    if inspect.iscoroutinefunction(item.obj):
        mark = item.get_closest_marker("patience")
        item.obj = bounded(item.obj, patience(mark.args[0] if mark else PATIENCE))


def bounded(test: Callable[..., Awaitable[None]], seconds: float) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def run(*args: Any, **kwds: Any) -> None:
        async with asyncio.timeout(seconds):
            await test(*args, **kwds)

    return run


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the programs before the first test's time begins to run.

    The first build on a machine compiles Go's standard library, which takes a while.
    """
    needed = any(HERE in item.path.parents for item in session.items)
    if not needed or session.config.option.collectonly:
        return
    folder = session.config._tmp_path_factory.mktemp("go")  # type: ignore[attr-defined]
    try:
        session.config.stash[PROGRAMS] = build(folder)
    except (GoToolchainMissing, RuntimeError, subprocess.TimeoutExpired) as exc:
        session.config.stash[PROGRAMS] = exc


@pytest.fixture(scope="session")
def programs(request: pytest.FixtureRequest) -> dict[str, Path]:
    """The built peers, by release."""
    built = request.config.stash[PROGRAMS]
    if isinstance(built, GoToolchainMissing) and os.environ.get("MUXADO_REQUIRE_GO") != "1":
        pytest.skip(str(built))
    if isinstance(built, Exception):
        pytest.fail(str(built), pytrace=False)
    return built


@pytest.fixture(scope="session")
def wires_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built peer of the other wires."""
    if shutil.which("go") is None:
        if os.environ.get("MUXADO_REQUIRE_GO") == "1":
            pytest.fail("the Go toolchain is missing", pytrace=False)
        pytest.skip("the Go toolchain is missing: no `go` in PATH")
    path = tmp_path_factory.mktemp("go") / "wires"
    built = subprocess.run(
        ["go", "build", "-o", str(path), "."],
        cwd=HERE / "wires",
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_TIMEOUT,
    )
    assert built.returncode == 0, built.stderr
    return path


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def anyio_backend() -> object:
    return "asyncio", {"use_uvloop": os.environ.get("MUXADO_LOOP") == "uvloop"}


@pytest.fixture
async def no_tasks_left(anyio_backend: object) -> AsyncIterator[None]:
    """Fail a test that leaves tasks behind; listed first, it looks last."""
    yield
    assert [task for task in asyncio.all_tasks() if not of_anyio(task)] == []


def of_anyio(task: asyncio.Task[Any]) -> bool:
    """Tell the tasks that run fixtures and tests from theirs."""
    return getattr(task.get_coro(), "__qualname__", "").startswith("TestRunner.")


@pytest.fixture
async def asyncios_own_bug(anyio_backend: object) -> None:
    """Let an error pass that is CPython's, and harmless.

    A TLS connection that proves lost while asyncio resumes its writing is reported lost twice;
    at the second time the transport has no protocol any more.
    """
    loop = asyncio.get_running_loop()
    report = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        twice = "_call_connection_lost" in context.get("message", "")
        if not (twice and isinstance(context.get("exception"), AttributeError)):
            assert report is not None
            report(loop, context)

    loop.set_exception_handler(handle)


@pytest.fixture(params=USUAL_WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    """Both roles, over TCP and TLS."""
    chosen: Way = request.param
    return chosen


@pytest.fixture(params=sorted(RELEASES))
def release(request: pytest.FixtureRequest) -> str:
    """Go's releases, for what differs between them."""
    name: str = request.param
    return name


@pytest.fixture
async def meeting(
    request: pytest.FixtureRequest,
    no_tasks_left: None,
    asyncios_own_bug: None,
    programs: dict[str, Path],
    tls: Tls,
    tmp_path: Path,
) -> AsyncIterator[Meeting]:
    meeting = Meeting(programs, tls, tmp_path)
    request.node.stash[MEETING] = meeting
    yield meeting
    await meeting.end()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what Go has said when a test fails."""
    report = yield
    meeting = item.stash.get(MEETING, None)
    if report.failed and meeting is not None:
        for number, peer in enumerate(meeting.peers):
            report.sections.append((f"Go peer {number}", peer.log()))
    return report
