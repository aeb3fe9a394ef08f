"""What the sessions of all front ends share, over a core alone: state, endings, codes, log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
import trio

import muxado
import muxado.testing
from muxado.base_session import BaseSession
from muxado.core import CoreSession
from muxado.front_end import code_of, log_session_failure
from muxado.registry import SessionRecord
from tests.patience import patience

from .core.peer import data, goaway

PATIENCE = patience(10)


class Session(BaseSession[Any]):
    """The shared base over a core, with steps taken at once."""

    def __init__(self, *, client: bool = False) -> None:
        self._core = CoreSession(client=client, config=muxado.Config(), now=0.0)
        self._record = SessionRecord(self._core)
        self._on_draining: list[Callable[[], object]] = []

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": "peer", "sockname": "here"}.get(name, default)

    def _do(self, step: Callable[..., object], *args: object) -> None:
        step(*args)

    def _now(self) -> float:
        return 1.0

    def hear(self, *frames: bytes) -> None:
        self._core.receive_data(b"".join(frames), 1.0)


def test_a_session_tells_its_state_in_its_repr() -> None:
    session = Session()
    assert "server open" in repr(session)
    session.go_away()
    assert session.draining
    assert "server draining" in repr(session)
    session.close()
    assert session.closed
    assert "server closing" in repr(session)


def test_the_peers_goaway_can_be_seen_and_open_carries_it() -> None:
    session = Session(client=True)
    before = session.peer_goaway, session.draining
    assert before == (None, False)
    session.hear(goaway(0, 7, b"redeploying"))
    assert session.peer_goaway == (7, b"redeploying")
    assert session.draining
    assert "client draining" in repr(session)
    with pytest.raises(muxado.PeerGone, match="redeploying") as caught:
        session._core.open()
    assert caught.value.code == 7


def test_abort_says_internal_error_by_default_and_never_0() -> None:
    session = Session()
    with pytest.raises(muxado.UsageError):
        session.abort(0)
    assert not session.closed
    session.abort()
    assert session.close_reason is not None
    assert (session.close_reason.code, session.close_reason.clean) == (2, False)


@pytest.mark.parametrize(("streams", "words"), [(1, "1 stream left"), (2, "2 streams left")])
def test_a_shutdown_whose_time_is_up_says_so(streams: int, words: str) -> None:
    session = Session()
    session.hear(*(data(3 + 2 * i, syn=True) for i in range(streams)))
    session._time_is_up(0.5)
    reason = session._reason()
    assert "0.5 s" in reason.message
    assert words in reason.message
    assert (reason.code, reason.clean) == (2, False)


@pytest.mark.parametrize(
    ("exc_type", "code"),
    [
        (ValueError, 2),
        (muxado.StreamReset, 2),
        (asyncio.CancelledError, 6),
        (KeyboardInterrupt, 6),
        (SystemExit, 6),
    ],
)
def test_a_blocks_exception_decides_the_code(exc_type: type[BaseException], code: int) -> None:
    assert code_of(exc_type) == code


@pytest.mark.parametrize(
    ("exc", "level"),
    [(muxado.SessionClosed("over"), logging.INFO), (ValueError("over"), logging.ERROR)],
)
def test_a_handlers_own_fault_is_logged_as_an_error(
    exc: Exception, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "muxado")
    log_session_failure(Session(), exc)
    assert [record.levelno for record in caplog.records] == [level]
    assert "over" in caplog.text


def test_a_handler_of_streams_that_was_given_a_session_is_told_so() -> None:
    session = Session()
    with pytest.raises(AttributeError) as caught:
        session.read  # type: ignore[attr-defined]  # noqa: B018
    log_session_failure(session, caught.value)
    log_session_failure(Session(), caught.value)  # another session's is no such mistake
    (note,) = caught.value.__notes__
    assert "a handler of streams is for serve_streams()" in note


def test_a_said_end_is_quiet_though_it_cuts_a_stream() -> None:
    session = Session()
    assert not session._ended_in_order()
    session.hear(data(3, b"unread", syn=True), goaway(0, 0))
    session._core.receive_eof(1.0)
    assert session._ended_in_order()
    assert not session._reason().clean


def test_an_end_with_a_code_is_not_quiet() -> None:
    session = Session()
    session.hear(goaway(0, 5))
    session._core.receive_eof(1.0)
    assert not session._ended_in_order()


def test_a_session_has_a_name_that_may_be_set() -> None:
    session = Session()
    assert session.name == ""
    session.name = "agent 7"
    assert session.name == "agent 7"
    assert "<Session 'agent 7' server open" in repr(session)
    with pytest.raises(muxado.UsageError, match="name must be a string"):
        session.name = 7  # type: ignore[assignment]
    assert session.name == "agent 7"


def test_a_program_that_only_dials_refuses_every_stream() -> None:
    with muxado.testing.sync_pair(
        muxado.Config(max_incoming_streams=0), server_config=muxado.Config()
    ) as (near, far):
        with far.open(eager=True) as refused:
            assert refused.wait_reset(PATIENCE) == muxado.ErrorCode.STREAM_REFUSED
        with near.open(eager=True) as stream, far.accept(PATIENCE) as other:
            other.sendall(b"fine")
            stream.settimeout(PATIENCE)
            assert stream.recv(4) == b"fine"


HINT = r"a stream carries bytes, and no str: write text\.encode\(\)"


def test_text_is_told_to_become_bytes_on_asyncio() -> None:
    async def main() -> None:
        async with muxado.testing.asyncio_pair() as (near, _):
            stream: Any = near.open()
            with pytest.raises(TypeError, match=HINT):
                await stream.write("text")
            with pytest.raises(TypeError, match=HINT):
                await stream.writelines([b"bytes", "text"])
            transport: Any = (await near.open_connection())[1]
            with pytest.raises(TypeError, match="str"):
                transport.write("text")
            transport.close()
            stream.reset()

    asyncio.run(main())


def test_text_is_told_to_become_bytes_in_threads() -> None:
    with muxado.testing.sync_pair() as (near, _), near.open() as stream:
        call: Any
        for call in (stream.send, stream.sendall):
            with pytest.raises(TypeError, match=HINT):
                call("text")
        assert not near.closed


def test_text_is_told_to_become_bytes_on_trio() -> None:
    async def main() -> None:
        async with muxado.testing.trio_pair() as (near, _), near.open() as stream:
            call: Any = stream.send_all
            with pytest.raises(TypeError, match=HINT):
                await call("text")

    trio.run(main)
