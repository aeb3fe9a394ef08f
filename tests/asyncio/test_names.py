"""The public names: all of them are there, and each says what it is for."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import pytest

import muxado
import muxado.asyncio

DESIGNED = {
    "AdminServer",
    "Backoff",
    "CloseReason",
    "CommandEnded",
    "Config",
    "ConfigError",
    "Dialer",
    "DialerState",
    "ErrorCode",
    "GoAway",
    "Listener",
    "MuxadoError",
    "PeerGone",
    "PeerTimeout",
    "ProtocolError",
    "ProxyRefused",
    "Relay",
    "RelayResult",
    "Server",
    "ServerStats",
    "Session",
    "SessionAborted",
    "SessionClosed",
    "SessionError",
    "SessionSnapshot",
    "SessionStats",
    "Stream",
    "StreamBusy",
    "StreamClosed",
    "StreamError",
    "StreamRefused",
    "StreamReset",
    "StreamSnapshot",
    "StreamsExhausted",
    "UsageError",
    "__version__",
    "client",
    "connect",
    "listen",
    "relay",
    "serve",
    "serve_admin",
    "serve_stdio",
    "serve_streams",
    "server",
    "sessions",
}
METHODS = {
    "Session": {
        "abort", "accept", "close", "close_reason", "closed", "config", "get_extra_info",
        "go_away", "local_address", "open", "ping", "remote_address", "serve", "shutdown",
        "stats", "wait_closed",
    },
    "Stream": {
        "at_eof", "close", "get_extra_info", "id", "is_closing", "priority", "read",
        "readexactly", "readinto", "readline", "readuntil", "reset", "session", "type",
        "wait_closed", "wait_reset", "write", "write_eof", "writelines",
    },
    "Server": {
        "addresses", "close", "serve_forever", "sessions", "shutdown", "sockets", "wait_closed",
    },
    "Listener": {"accept", "addresses", "close", "sockets", "wait_closed"},
}  # fmt: skip
ERRORS = {
    muxado.UsageError: (muxado.MuxadoError, RuntimeError),
    muxado.ConfigError: (muxado.UsageError, ValueError),
    muxado.StreamBusy: (muxado.UsageError,),
    muxado.SessionError: (muxado.MuxadoError, ConnectionError),
    muxado.SessionClosed: (muxado.SessionError,),
    muxado.ProtocolError: (muxado.SessionError,),
    muxado.SessionAborted: (muxado.SessionError,),
    muxado.PeerTimeout: (muxado.SessionError,),
    muxado.PeerGone: (muxado.SessionError,),
    muxado.StreamsExhausted: (muxado.SessionError,),
    muxado.StreamError: (muxado.MuxadoError,),
    muxado.StreamClosed: (muxado.StreamError, BrokenPipeError),
    muxado.StreamReset: (muxado.StreamError, ConnectionResetError),
    muxado.StreamRefused: (muxado.StreamReset,),
}


def test_all_names_what_there_is() -> None:
    assert set(muxado.__all__) == DESIGNED
    assert muxado.__all__ == sorted(muxado.__all__)
    for name in muxado.__all__:
        assert not inspect.ismodule(getattr(muxado, name)), f"{name} is hidden by a module"
    public = {
        name
        for name, value in vars(muxado).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == DESIGNED - {"__version__"}


def test_the_front_end_has_the_same_names() -> None:
    for name in muxado.asyncio.__all__:
        assert getattr(muxado, name) is getattr(muxado.asyncio, name)


@pytest.mark.parametrize(("owner", "names"), METHODS.items(), ids=METHODS)
def test_a_class_has_the_designed_members(owner: str, names: set[str]) -> None:
    assert names <= set(dir(getattr(muxado, owner)))


@pytest.mark.parametrize(
    ("error", "bases"), ERRORS.items(), ids=lambda e: getattr(e, "__name__", "")
)
def test_errors_are_in_the_tree(
    error: type[muxado.MuxadoError], bases: tuple[type[Exception], ...]
) -> None:
    assert all(issubclass(error, base) for base in bases)
    assert isinstance(error.code, int)


def documented() -> Iterator[object]:
    for name in sorted(DESIGNED - {"__version__"}):
        value = getattr(muxado, name)
        yield pytest.param(value, id=name)
        if not inspect.isclass(value):
            continue
        for member, attribute in sorted(vars(value).items()):
            public = not member.startswith("_")
            if public and (inspect.isfunction(attribute) or isinstance(attribute, property)):
                yield pytest.param(attribute, id=f"{name}.{member}")


@pytest.mark.parametrize("value", list(documented()))
def test_every_public_name_has_a_docstring(value: object) -> None:
    text = inspect.getdoc(value)
    assert text
    assert text.rstrip()[-1] in ".:)`"


@pytest.mark.parametrize("call", ["connect", "serve", "listen", "client", "server"])
def test_every_argument_is_typed(call: str) -> None:
    signature = inspect.signature(getattr(muxado, call))
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty
