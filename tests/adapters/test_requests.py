"""requests and urllib3 over streams, from threads."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from threading import Thread
from time import monotonic

import pytest
import requests
import urllib3

from muxado.adapters.requests import Adapter
from muxado.adapters.socketserver import HTTPServer
from muxado.adapters.urllib3 import PoolManager

from .conftest import PATIENCE, SyncEnds, Tls
from .http_service import serving

MIB = 1024 * 1024


@pytest.fixture
def http(sync_ends: SyncEnds) -> Iterator[requests.Session]:
    with requests.Session() as http:
        for scheme in ("http://", "https://"):
            http.mount(scheme, Adapter(sync_ends.calling))
        yield http


def test_requests_on_one_stream(http: requests.Session, sync_ends: SyncEnds) -> None:
    with serving(sync_ends.serving):
        for path in ("/one", "/two"):
            response = http.get(f"http://no.such.host{path}", timeout=PATIENCE)
            assert response.status_code == 200
            assert response.text == path
    assert sync_ends.calling.stats().streams_opened == 1


def test_many_at_once(sync_ends: SyncEnds) -> None:
    def post(number: int) -> None:
        body = b"%d" % number * 10_000
        with requests.Session() as http:
            http.mount("http://", Adapter(sync_ends.calling))
            assert http.post("http://service/", data=body, timeout=PATIENCE).content == body

    with serving(sync_ends.serving), ThreadPoolExecutor(20) as executor:
        list(executor.map(post, range(30)))


def test_a_body_larger_than_the_window(http: requests.Session, sync_ends: SyncEnds) -> None:
    body = bytes(4 * MIB)
    with serving(sync_ends.serving):
        assert http.post("http://service/", data=body, timeout=PATIENCE).content == body


def test_a_connection_that_the_server_has_closed_is_not_used_again(
    http: requests.Session, sync_ends: SyncEnds
) -> None:
    with serving(sync_ends.serving):
        for _ in range(3):
            assert http.get("http://service/once", timeout=PATIENCE).text == "/once"
            end = monotonic() + PATIENCE
            while sync_ends.serving.stats().streams and monotonic() < end:
                sync_ends.calling.ping(PATIENCE)
            sync_ends.calling.ping(PATIENCE)
    assert sync_ends.calling.stats().streams_opened == 3


def test_proxies_are_not_asked(
    http: requests.Session, sync_ends: SyncEnds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serving(sync_ends.serving):
        assert http.get("http://service/x", timeout=PATIENCE).text == "/x"


def test_https_inside_a_stream(http: requests.Session, sync_ends: SyncEnds, tls: Tls) -> None:
    with serving(sync_ends.serving, tls.server):
        for _ in range(2):
            url = "https://service.internal/secret"
            assert http.get(url, timeout=PATIENCE, verify=tls.authority).text == "/secret"
        assert sync_ends.calling.stats().streams_opened == 1
        with pytest.raises(requests.exceptions.SSLError, match="elsewhere"):
            http.get("https://elsewhere.internal/", timeout=PATIENCE, verify=tls.authority)


def test_failures(http: requests.Session, sync_ends: SyncEnds) -> None:
    with serving(sync_ends.serving):
        with pytest.raises(requests.exceptions.ConnectionError):
            http.get("http://service/reset", timeout=PATIENCE)
        with pytest.raises(requests.exceptions.ReadTimeout):
            http.get("http://service/silent", timeout=0.05)
        sync_ends.calling.close()
        with pytest.raises(requests.exceptions.ConnectionError):
            http.get("http://service/", timeout=PATIENCE)


def test_urllib3_itself(sync_ends: SyncEnds) -> None:
    with serving(sync_ends.serving), PoolManager(sync_ends.calling) as http:
        assert http.request("GET", "http://service/x", timeout=PATIENCE).data == b"/x"
        sync_ends.calling.close()
        with pytest.raises(urllib3.exceptions.MaxRetryError):
            http.request("GET", "http://other/x", timeout=PATIENCE, retries=1)


class TooLarge(BaseHTTPRequestHandler):
    """Refuses every upload without reading it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.send_response(413)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


def upload() -> Iterator[bytes]:
    """Give more than the window holds, in pieces."""
    return (bytes(64 * 1024) for _ in range(64))


@pytest.mark.parametrize("library", ["urllib3", "requests"])
def test_an_early_answer_to_an_upload_is_had(
    http: requests.Session, sync_ends: SyncEnds, library: str
) -> None:
    service = HTTPServer(sync_ends.serving, TooLarge)
    thread = Thread(target=service.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        if library == "requests":
            answer = http.post("http://service/", data=upload(), timeout=PATIENCE)
            assert answer.status_code == 413
        else:
            with PoolManager(sync_ends.calling, retries=False) as pool:
                raw = pool.request("POST", "http://service/", body=upload(), timeout=PATIENCE)
                assert raw.status == 413
    finally:
        service.shutdown()
        service.server_close()
        thread.join()
