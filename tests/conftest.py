"""What all tests share: the factor of their time limits, the mark `slow`, certificates, paths."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Tls
from tests.contract.wires import summarize
from tests.patience import scale_timeout


@pytest.hookimpl(tryfirst=True)  # before pytest-timeout reads its limit
def pytest_configure(config: pytest.Config) -> None:
    scale_timeout(config)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # So it is in a background job of `sh`, where the tests of Ctrl-C would wait for ever.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "slow: takes minutes; runs only if asked for by -m slow")
    config.addinivalue_line("markers", "needs(*properties): what a test asks of a wire")
    config.addinivalue_line("markers", "everywhere: runs on each wire in each front end")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slow" in str(config.getoption("markexpr")):
        return
    skip = pytest.mark.skip(reason="runs only if asked for by -m slow")
    for item in items:
        if item.get_closest_marker("slow") is not None:
            item.add_marker(skip)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell how much of the contract ran on each wire, and why the rest did not."""
    stats = terminalreporter.stats
    reports = [*stats.get("passed", []), *stats.get("failed", []), *stats.get("skipped", [])]
    lines = summarize(reports)
    if len(lines) > 1:
        terminalreporter.section("the contract by wire")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def tls() -> Tls:
    return Tls()


@pytest.fixture
def socket_path() -> Iterator[str]:
    """A path for a Unix socket, short enough for every platform."""
    with tempfile.TemporaryDirectory(prefix="mux") as folder:
        yield str(Path(folder) / "s")
