"""A connection that is cut after a silence: what it may come from is in the reason."""

from __future__ import annotations

import pytest

from muxado import Config

from .peer import Bench, data, goaway


def ended(bench: Bench, exception: OSError | None = None) -> str:
    bench.core.connection_lost(exception, bench.now)
    reason = bench.core.reason
    assert reason is not None
    return reason.message


@pytest.mark.parametrize("exception", [None, ConnectionResetError("reset")], ids=["end", "reset"])
@pytest.mark.parametrize(
    ("interval", "words"), [(15.0, "15 s"), (0.5, "0.5 s"), (90, "90 s"), (None, "None")]
)
def test_a_cut_after_a_silence_may_be_a_proxys(
    exception: OSError | None, interval: float | None, words: str
) -> None:
    bench = Bench(Config(ping_interval=interval))
    bench.hear(data(3, syn=True))
    bench.now += 10
    hint = f"idle for 10 s (a proxy's idle timeout? ping_interval is {words})"
    assert hint in ended(bench, exception)


def test_an_idle_session_without_streams_gets_the_hint_too() -> None:
    bench = Bench(client=True)
    bench.hear(data(1))
    bench.now += 12
    assert ended(bench).endswith("idle for 12 s (a proxy's idle timeout? ping_interval is 15 s)")


def test_other_ends_have_no_such_hint() -> None:
    busy = Bench()
    busy.hear(data(3, syn=True))
    busy.now += 1
    assert "idle" not in ended(busy)

    told = Bench()
    told.hear(goaway(0, 0))
    told.now += 100
    assert "idle" not in ended(told)

    mute = Bench(client=True)
    mute.now += 100
    assert ended(mute).endswith("does it expect TLS?")

    secured = Bench(client=True)
    secured.core.agree(None)
    assert not ended(secured).endswith("does it expect TLS?")

    forked = Bench()
    forked.now += 100
    forked.core.disown(forked.now)
    assert forked.core.reason is not None
    assert "idle" not in forked.core.reason.message
