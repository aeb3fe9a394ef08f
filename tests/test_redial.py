"""When, where and whether a dialer dials again: `Redial`, with a clock of the test's own."""

from __future__ import annotations

import random
import ssl
from bisect import bisect_left
from math import inf, nan

import pytest

import muxado
from muxado import Backoff, PeerGone, SessionAborted, SessionClosed, UsageError
from muxado.base_dialer import check_policy
from muxado.redial import FINAL, MOST_DRAINING, MOST_RETRY_AFTER, Redial

REFUSED = ConnectionRefusedError("refused")
GONE = PeerGone("going away")
LOST = SessionClosed("over")
BACKOFF = Backoff(first=1.0, most=8.0)


def redial(places: int = 1, draw: float = 1.0) -> Redial[str]:
    """Make one whose dial is due at 0; its pauses are as long as they may be."""
    made: Redial[str] = Redial(places, BACKOFF, FINAL, lambda: draw)
    made.renew(0.0)
    return made


def connected(draw: float = 1.0) -> Redial[str]:
    """Make one that has its first session since 0."""
    made = redial(draw=draw)
    made.begin_dial()
    made.dialled("first", 0.0)
    return made


def fail(made: Redial[str], now: float, exc: BaseException = REFUSED) -> float | None:
    """Let the dial that is due fail; return when the next one is."""
    assert made.due is not None
    assert made.due <= now
    made.begin_dial()
    made.dial_failed(exc, now)
    return made.due


# When


def test_the_first_dial_is_due_at_once_and_none_while_it_runs() -> None:
    made = redial()
    assert (made.due, made.state) == (0.0, "connecting")
    made.begin_dial()
    assert (made.due, made.state) == (None, "connecting")
    made.dialled("first", 1.0)
    assert (made.due, made.state, made.usable) == (None, "connected", "first")


def test_pauses_double_up_to_the_longest() -> None:
    made = redial()
    now = 0.0
    pauses = []
    for _ in range(6):
        due = fail(made, now)
        assert due is not None
        pauses.append(due - now)
        now = due
    assert pauses == [1, 2, 4, 8, 8, 8]


def test_pauses_are_a_random_part() -> None:
    made = redial(draw=0.25)
    assert fail(made, 0.0) == 0.25
    assert fail(made, 1.0) == 1.5


def test_endless_tries_overflow_nothing() -> None:
    made = redial()
    for now in range(0, 8 * 3000, 8):
        fail(made, float(now))
    assert made.due == 8 * 3000


def test_a_session_that_lived_for_a_while_makes_the_next_pause_the_shortest() -> None:
    made = redial()
    for now in (0.0, 10.0, 20.0):
        fail(made, now)
    made.begin_dial()
    made.dialled("second", 30.0)
    made.ended("second", LOST, 38.0)
    assert made.due == 39.0


def test_a_session_that_ended_soon_does_not() -> None:
    made = redial()
    for now in (0.0, 10.0):
        fail(made, now)
    made.begin_dial()
    made.dialled("second", 20.0)
    made.ended("second", LOST, 27.9)
    assert made.due == 27.9 + 4


def test_a_peer_that_accepts_and_hangs_up_is_not_dialled_without_end() -> None:
    made = redial()
    now = 0.0
    tries = 0
    while now < 80:
        assert made.due is not None
        now = made.due
        made.begin_dial()
        made.dialled("session", now)
        made.ended("session", LOST, now)
        tries += 1
    assert tries == 14  # at 0, 1, 3, 7, 15, and then every 8 seconds


@pytest.mark.parametrize("wanted", [7, 7.5])
def test_retry_after_is_the_least_pause(wanted: float) -> None:
    exc = OSError("busy")
    exc.retry_after = wanted  # type: ignore[attr-defined]
    made = redial(draw=0.5)
    assert fail(made, 0.0, exc) == wanted + 0.5


@pytest.mark.parametrize("wanted", ["soon", None, True, -3, nan])
def test_a_retry_after_that_is_no_time_is_left_out(wanted: object) -> None:
    exc = OSError("busy")
    exc.retry_after = wanted  # type: ignore[attr-defined]
    assert fail(redial(), 0.0, exc) == 1.0


@pytest.mark.parametrize("wanted", [1e300, inf])
def test_a_peer_cannot_put_a_dialer_off_for_ever(wanted: float) -> None:
    exc = OSError("busy")
    exc.retry_after = wanted  # type: ignore[attr-defined]
    assert fail(redial(), 0.0, exc) == MOST_RETRY_AFTER + 1


def test_500_dialers_that_lost_their_server_do_not_come_back_together() -> None:
    source = random.Random(20)
    retries: dict[int, list[float]] = {}
    for _ in range(500):
        made: Redial[str] = Redial(1, Backoff(), FINAL, source.random)
        made.renew(0.0)
        made.begin_dial()
        made.dialled("first", 0.0)
        made.ended("first", LOST, 100.0)
        for retry in range(1, 13):
            now = made.due
            assert now is not None
            retries.setdefault(retry, []).append(now)
            made.begin_dial()
            made.dial_failed(REFUSED, now)
    assert crowd(retries[1]) == 500  # within the first 0.1 s, as the shortest pause is
    later = [now for retry, times in retries.items() if retry >= 6 for now in times]
    assert crowd(later) <= 50
    assert all(crowd(times) <= 50 for retry, times in retries.items() if retry >= 6)


def crowd(times: list[float]) -> int:
    """Return how many are in the fullest 100 ms."""
    times = sorted(times)
    return max(bisect_left(times, now + 0.1) - at for at, now in enumerate(times))


# Where


def test_addresses_are_dialled_in_turn() -> None:
    made = redial(places=3)
    places = []
    for now in range(7):
        places.append(made.begin_dial())
        if now % 2:
            made.dialled("session", 10.0 * now)
            made.ended("session", LOST, 10.0 * now)
        else:
            made.dial_failed(REFUSED, 10.0 * now)
    assert places == [0, 1, 2, 0, 1, 2, 0]


# Whether


@pytest.mark.parametrize(
    "exc",
    [
        UsageError("a mistake"),
        ssl.SSLCertVerificationError("not trusted"),
        SessionAborted("denied", code=401),
        SessionAborted("denied", code=403),
        PeerGone("denied", code=403),
    ],
)
def test_a_final_error_ends_all_tries(exc: BaseException) -> None:
    made = redial()
    assert fail(made, 0.0, exc) is None
    assert (made.over, made.state, made.last_error) == (True, "failed", exc)
    for _ in range(2):
        with pytest.raises(type(exc)) as caught:
            made.check()
        assert caught.value is exc
    made.renew(1.0)
    assert made.due is None


def test_a_status_counts_as_a_code() -> None:
    exc = OSError("HTTP")
    exc.status = 401  # type: ignore[attr-defined]
    assert fail(redial(), 0.0, exc) is None


@pytest.mark.parametrize(
    "exc",
    [
        REFUSED,
        ssl.SSLError("handshake"),
        TimeoutError("slow"),
        TypeError("a bug"),
        muxado.ProtocolError("broken"),
        SessionAborted("busy", code=503),
    ],
)
def test_every_other_error_ends_in_another_try(exc: BaseException) -> None:
    made = redial()
    assert fail(made, 0.0, exc) == 1.0
    assert (made.state, made.state.next_try, made.last_error) == ("waiting", 1.0, exc)
    made.check()


def test_what_is_final_can_be_said() -> None:
    made: Redial[str] = Redial(1, BACKOFF, [ConnectionRefusedError, 7], lambda: 1.0)
    made.renew(0.0)
    assert fail(made, 0.0, UsageError("not final now")) is not None
    assert fail(made, 10.0, SessionAborted("denied", code=403)) is not None
    assert fail(made, 20.0, SessionAborted("seven", code=7)) is None
    assert made.failure is made.last_error


def test_a_denial_by_a_session_lets_the_sessions_run_to_their_end() -> None:
    made = connected()
    made.spent("first", PeerGone("denied", code=403), 1.0)
    assert (made.state, made.usable) == ("failed", None)
    assert made.take_drains() == ["first"]


def test_the_end_of_a_session_counts_after_its_goaway() -> None:
    made = connected()
    made.spent("first", GONE, 1.0)
    denied = SessionAborted("denied", code=401)
    made.ended("first", denied, 1.0)
    assert (made.state, made.due, made.last_error) == ("failed", None, denied)


def test_the_last_error_is_a_sessions_end_unless_there_is_a_later_one() -> None:
    made, other = connected(), connected()
    made.spent("first", GONE, 20.0)
    assert made.last_error is GONE
    made.ended("first", LOST, 20.0)
    other.spent("first", GONE, 20.0)
    fail(other, 21.0)
    other.ended("first", LOST, 22.0)
    assert [each.last_error for each in (made, other)] == [LOST, REFUSED]


def test_a_dial_that_fails_after_the_end_changes_nothing() -> None:
    made = redial()
    made.begin_dial()
    made.fail(LOST)
    made.dial_failed(REFUSED, 1.0)
    assert (made.failure, made.last_error, made.due) == (LOST, LOST, None)
    made.close()
    made.fail(REFUSED)
    assert (made.failure, made.state) == (LOST, "closed")
    with pytest.raises(SessionClosed):
        made.check()


# Overlap


def test_after_goaway_the_session_stays_until_the_next_is_there() -> None:
    made = connected()
    made.spent("first", GONE, 20.0)
    assert (made.usable, made.current) == (None, "first")
    assert (made.state, made.state.next_try) == ("draining", 21.0)
    assert made.take_drains() == []
    made.begin_dial()
    assert (made.state, made.state.next_try) == ("draining", None)
    made.dialled("second", 21.5)
    assert (made.usable, made.state) == ("second", "connected")
    assert made.take_drains() == ["first"]
    assert made.take_drains() == []
    made.ended("first", LOST, 22.0)
    assert (made.usable, made.due) == ("second", None)


def test_a_goaway_that_is_told_twice_counts_once() -> None:
    made = connected()
    made.spent("first", GONE, 20.0)
    made.spent("first", GONE, 30.0)
    assert made.due == 21.0


def test_a_session_that_ends_while_the_next_is_dialled_causes_no_second_dial() -> None:
    made = connected()
    made.spent("first", GONE, 20.0)
    made.begin_dial()
    made.ended("first", LOST, 21.0)
    assert (made.due, made.state) == (None, "connecting")
    made.dialled("second", 22.0)
    assert (made.usable, made.take_drains()) == ("second", [])


def test_dials_that_fail_while_the_last_session_drains_go_on_when_it_has_ended() -> None:
    made = connected()
    made.spent("first", GONE, 20.0)
    fail(made, 21.0)
    assert (made.state, made.state.next_try) == ("draining", 23.0)
    made.ended("first", LOST, 22.0)
    assert (made.state, made.state.next_try) == ("waiting", 23.0)


def test_renew_keeps_the_session_usable_until_the_next_is_there() -> None:
    made = connected()
    made.renew(5.0)
    assert (made.due, made.usable, made.state) == (5.0, "first", "connected")
    made.begin_dial()
    made.renew(5.5)  # that one is the next
    assert (made.due, made.usable) == (None, "first")
    made.dial_failed(REFUSED, 6.0)
    assert (made.due, made.usable) == (7.0, "first")
    made.begin_dial()
    made.dialled("second", 7.0)
    assert (made.usable, made.take_drains()) == ("second", ["first"])


def test_renew_ends_a_pause() -> None:
    made = redial()
    fail(made, 0.0)
    made.renew(0.25)
    assert made.due == 0.25


def test_a_peer_that_drains_every_session_gets_no_more_than_some() -> None:
    made = redial()
    alive: set[str] = set()
    most = 0
    for number in range(100):
        session = f"session {number}"
        made.begin_dial()
        made.dialled(session, 100.0 * number)
        alive.add(session)
        made.spent(session, GONE, 100.0 * number)
        for aborted in made.take_surplus():
            alive.remove(aborted)
            made.ended(aborted, LOST, 100.0 * number)
        most = max(most, len(alive))
    assert most == MOST_DRAINING + 1


def test_close_ends_everything() -> None:
    made = connected()
    made.renew(1.0)
    made.close()
    assert (made.due, made.over, made.state) == (None, True, "closed")


# Settings


def test_the_state_is_a_string_with_a_time() -> None:
    state = muxado.DialerState("waiting", 3.5)
    assert state == "waiting"
    assert (f"{state}", state.next_try, muxado.DialerState("closed").next_try) == (
        "waiting",
        3.5,
        None,
    )


def test_the_backoff_has_the_defaults_that_are_documented() -> None:
    assert Backoff() == Backoff(first=0.1, most=15.0) == Backoff(0.1, 15.0)


@pytest.mark.parametrize(
    ("first", "most"), [(0, 1), (-1, 1), (2, 1), (1, inf), (nan, 1), (1, nan), ("1", 2), (True, 2)]
)
def test_a_backoff_that_cannot_be_is_refused(first: float, most: float) -> None:
    with pytest.raises(UsageError, match="Backoff"):
        Backoff(first, most)


@pytest.mark.parametrize("final", [403, "ValueError", ["ValueError"], [ValueError("x")], [True]])
def test_a_final_that_cannot_be_is_refused(final: object) -> None:
    with pytest.raises(UsageError, match="final="):
        check_policy(Backoff(), final)
