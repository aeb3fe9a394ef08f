"""Which of trio's errors stands for one of muxado's, and that it carries it."""

from __future__ import annotations

import pytest
import trio

from muxado.errors import MuxadoError, SessionClosed, StreamClosed, StreamReset
from muxado.trio.errors import as_trio_error, original, trio_errors


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (StreamClosed("closed"), trio.ClosedResourceError),
        (StreamReset("reset by the peer", code=6, by_peer=True), trio.BrokenResourceError),
    ],
)
def test_what_this_side_has_closed_is_closed_and_else_it_is_broken(
    error: MuxadoError, kind: type[Exception]
) -> None:
    assert type(as_trio_error(error)) is kind
    with pytest.raises(kind, match=str(error)) as caught, trio_errors:
        raise error
    assert caught.value.__cause__ is error
    assert original(caught.value) is error


def test_other_errors_pass_as_they_are() -> None:
    error = ValueError("no error of muxado's")
    with pytest.raises(ValueError, match="no error") as caught, trio_errors:
        raise error
    assert caught.value is error
    assert original(error) is error
    closed = SessionClosed("the session is closed")
    assert original(closed) is closed
    with trio_errors:
        pass
