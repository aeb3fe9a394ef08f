"""The compiled core does to the byte what the pure one does, and does it faster."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from muxado.build import COMPILED

from .pure import outcome, seconds
from .seeds import seeds
from .test_fuzz import ACTIONS, INPUTS, encoded, mutated

pytestmark = pytest.mark.skipif(
    not COMPILED, reason="only the compiled core has a pure one beside it"
)

ROOT = Path(__file__).parents[2]
# It is four to five times as fast; noise does not make that less than this.
LEAST_GAIN = 1.5


class PureBuild:
    """A process that runs the pure files."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.pure"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, line: str) -> str:
        """Return the answer to a line."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().rstrip("\n")


@pytest.fixture(scope="module")
def pure() -> Iterator[PureBuild]:
    build = PureBuild()
    with build.process:
        yield build


@given(INPUTS, ACTIONS)
@settings(
    max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_input_has_the_same_outcome(
    pure: PureBuild, given: tuple[int, bytes], actions: bytes
) -> None:
    flags, wire = given
    data = encoded(flags, actions, wire)
    assert outcome(data) == pure.ask(data.hex())


def test_mutated_conversations_have_the_same_outcome(pure: PureBuild) -> None:
    rng = random.Random(1)
    for seed in seeds().values():
        for _ in range(5):
            data = mutated(seed, rng)
            assert outcome(data) == pure.ask(data.hex())


def test_the_compiled_core_is_faster(pure: PureBuild) -> None:
    ours = min(seconds() for _ in range(3))
    theirs = min(float(pure.ask("time")) for _ in range(3))
    assert theirs / ours > LEAST_GAIN
