"""What is said in lines: headers and messages."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxado.cluster import (
    HEADER_LIMIT,
    MESSAGE_LIMIT,
    VERSION,
    Header,
    HeaderError,
    Message,
    check_version,
)

texts = st.text(max_size=100)


@given(
    st.builds(
        Header,
        service=texts,
        name=texts,
        hop=st.integers(0, 255),
        remaining=st.none() | st.integers(0, 10**6).map(lambda ms: ms / 1000),
        origin=texts,
        identity=texts,
    )
)
def test_a_header_comes_back_from_its_line(header: Header) -> None:
    line = header.pack()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert Header.unpack(line) == header
    assert Header.unpack(line[:-1]) == header


def test_a_header_has_the_documented_names() -> None:
    header = Header("http", "web-1", 1, 2.5, "192.0.2.9:5000", "alice")
    assert json.loads(header.pack()) == {
        "service": "http",
        "name": "web-1",
        "hop": 1,
        "remaining": 2.5,
        "from": "192.0.2.9:5000",
        "as": "alice",
    }
    assert Header("http").pack() == b'{"service":"http"}\n'


def test_what_a_later_version_says_besides_is_passed_over() -> None:
    assert Header.unpack(b'{"service":"http","color":["red"]}') == Header("http")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"GET / HTTP/1.1\r\n",
        b"[]",
        b"5",
        b'{"name":"x"}',
        b'{"service":5}',
        b'{"service":"x","as":null}',
        b'{"service":"x","hop":-1}',
        b'{"service":"x","hop":true}',
        b'{"service":"x","hop":1e9}',
        b'{"service":"x","remaining":-1}',
        b'{"service":"x","remaining":NaN}',
        b'{"service":"x","remaining":Infinity}',
        b'{"service":"x","remaining":"1"}',
        b'{"service":"x","remaining":1' + 400 * b"0" + b"}",
        b'{"service":"\xff"}',
        b"[" * 4000,
        b'{"service":"' + HEADER_LIMIT * b"x" + b'"}',
    ],
)
def test_what_is_no_header_is_refused(line: bytes) -> None:
    with pytest.raises(HeaderError):
        Header.unpack(line)


@given(st.binary(max_size=200))
def test_no_line_does_more_than_be_refused(line: bytes) -> None:
    for kind in (Header, Message):
        with contextlib.suppress(HeaderError):
            kind.unpack(line)


def test_a_header_that_is_too_long_is_not_made() -> None:
    with pytest.raises(HeaderError, match="4096 at most"):
        Header(HEADER_LIMIT * "x").pack()


def test_a_message_comes_back_from_its_line() -> None:
    message = Message("hello", {"version": VERSION, "services": ["http"], "meta": {"a": 1}})
    line = message.pack()
    assert json.loads(line)["type"] == "hello"
    assert Message.unpack(line) == message
    assert message.text("version") == VERSION
    assert message.text("key") == ""
    with pytest.raises(HeaderError):
        message.text("services")


@pytest.mark.parametrize(
    "line",
    [b"", b"{}", b"hello", b'{"type":1}', b'{"type":"' + MESSAGE_LIMIT * b"x" + b'"}'],
)
def test_what_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(HeaderError):
        Message.unpack(line)


def test_another_minor_version_can_be_talked_to_and_another_major_one_not() -> None:
    check_version(Message("hello", {"version": "1.7"}))
    for version in ("2.0", "", "10.0", "x"):
        with pytest.raises(HeaderError, match=r"speaks version 1\.0"):
            check_version(Message("hello", {"version": version}))
