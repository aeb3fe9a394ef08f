"""requests and urllib3 over one session: each keeps its connections, which are streams, alive."""

import http.server
import threading
from concurrent.futures import ThreadPoolExecutor

import requests

import muxado.sync
from muxado.adapters.requests import Adapter
from muxado.adapters.socketserver import HTTPServer
from muxado.adapters.urllib3 import PoolManager


class Squares(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # which keeps connections alive

    def do_GET(self) -> None:
        body = str(int(self.path.strip("/")) ** 2).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def agent(address: tuple[str, int]) -> None:
    with muxado.sync.connect(*address) as session, HTTPServer(session, Squares) as server:
        server.serve_forever()


with muxado.sync.listen("127.0.0.1", 0) as gateway:
    threading.Thread(target=agent, args=gateway.addresses).start()
    with gateway.accept(timeout=5) as session:
        with requests.Session() as http_session:
            http_session.mount("http://agent/", Adapter(session))
            answers = [
                int(http_session.get(f"http://agent/{number}", timeout=5).text)
                for number in range(10)
            ]
        print("requests:", answers)
        print("streams so far:", session.stats().streams_opened)

        with PoolManager(session, maxsize=4, block=True) as pool, ThreadPoolExecutor(20) as threads:

            def square(number: int) -> int:
                return int(pool.request("GET", f"http://agent/{number}").data)

            total = sum(threads.map(square, range(200)))
        print("urllib3, 20 threads:", total)
        print("streams so far:", session.stats().streams_opened)

assert answers == [number**2 for number in range(10)]
assert total == sum(number**2 for number in range(200))
