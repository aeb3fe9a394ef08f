"""An exception out of a signal's handler, wherever one may run: nothing goes wrong in silence."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from .interrupting import SCENES, Alarm, Interrupt, interrupt

# How many places of each call the short form tries.
SAMPLE = 25

pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.fixture(autouse=True)
def no_thread_dies(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    died: list[object] = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    yield
    assert died == []


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Collect what a cut-off call has left unclosed here, where its warning is expected."""
    yield
    gc.collect()


def play(name: str, every: int, pool: ThreadPoolExecutor, error: type[BaseException]) -> None:
    """Interrupt a call at each of its places, or at every so-manieth one."""
    number = 1
    while interrupt(name, number, pool, error) >= number:
        number += every


@pytest.mark.parametrize("error", [Interrupt, Alarm])
@pytest.mark.parametrize("name", SCENES)
def test_an_interrupted_call_is_done_or_not_begun_or_ends_the_session(
    name: str, error: type[BaseException], pool: ThreadPoolExecutor
) -> None:
    places = interrupt(name, 1 << 30, pool)
    assert places > 3
    play(name, max(1, 2 * places // SAMPLE), pool, error)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("error", [Interrupt, Alarm])
@pytest.mark.parametrize("name", SCENES)
def test_a_call_interrupted_at_each_place(
    name: str, error: type[BaseException], pool: ThreadPoolExecutor
) -> None:
    play(name, 1, pool, error)
