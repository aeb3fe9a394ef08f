"""Threads: http.server on a machine behind NAT; http.client, httpx and requests call it."""

import http.server
import threading

import httpx
import requests

import muxado.sync
from muxado.adapters.http_client import HTTPConnection
from muxado.adapters.httpx import Transport
from muxado.adapters.requests import Adapter
from muxado.adapters.socketserver import HTTPServer


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"{self.path} by {self.headers['User-Agent']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def agent(address: tuple[str, int]) -> None:
    with (
        muxado.sync.connect(*address) as session,
        HTTPServer(session, Handler) as server,
    ):
        server.serve_forever()


with muxado.sync.listen("127.0.0.1", 0) as gateway:
    threading.Thread(target=agent, args=gateway.addresses).start()
    with gateway.accept(timeout=5) as session:
        connection = HTTPConnection(session, "agent", timeout=5)
        connection.request("GET", "/http.client", headers={"User-Agent": "http.client"})
        answers = [connection.getresponse().read().decode()]
        connection.close()

        with httpx.Client(transport=Transport(session)) as client:
            answers.append(client.get("http://agent/httpx").text)

        with requests.Session() as http_session:
            http_session.mount("http://agent/", Adapter(session))
            answers.append(http_session.get("http://agent/requests", timeout=5).text)

print(*answers, sep="\n")
assert [answer.split(" by ")[0] for answer in answers] == [
    "/http.client",
    "/httpx",
    "/requests",
]
