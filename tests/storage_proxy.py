"""A real server between the store and its object storage, which does to the traffic what a test says."""

import http.client
import itertools
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

CONDITIONS = frozenset({"if-none-match"})
RANGES = frozenset({"range"})


@dataclass
class Weather:
    """What befalls the traffic; may be changed at any time. A number n means: every n-th request."""

    fail_every: int = 0
    cut_every: int = 0
    delay_s: float = 0.0
    is_down: bool = False
    forgotten_headers: frozenset[str] = frozenset()
    refused_status: int = 0
    refused_methods: frozenset[str] = frozenset({"GET", "PUT", "POST", "DELETE", "HEAD"})
    lists_nothing: bool = False
    count: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    requests: list[str] = field(default_factory=list)


class StorageProxy:
    """Serves `endpoint` on a port of its own until it is closed."""

    def __init__(self, target: str) -> None:
        self.weather = Weather()
        handler = type("Handler", (_Handler,), {"target": urlsplit(target).netloc, "weather": self.weather})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    target: str
    weather: Weather

    def _pass_on(self) -> None:
        weather, number = self.weather, next(self.weather.count)
        weather.requests.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        time.sleep(weather.delay_s)
        if weather.is_down:
            self.close_connection = True
            return
        if weather.refused_status and self.command in weather.refused_methods:
            self._answer(weather.refused_status, [], b"<Error><Code>AccessDenied</Code></Error>")
            return
        if weather.fail_every and number % weather.fail_every == 0:
            self._answer(503, [], b"<Error><Code>SlowDown</Code></Error>")
            return
        if weather.lists_nothing and "list-type=2" in self.path:
            self._answer(200, [], b"<ListBucketResult></ListBucketResult>")
            return
        status, headers, content = self._ask_the_storage(body)
        is_cut = weather.cut_every and number % weather.cut_every == 0
        self._answer(status, headers, content, sent=len(content) // 2 if is_cut else len(content))

    def _ask_the_storage(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        kept = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in self.weather.forgotten_headers | {"connection"}
        }
        connection = http.client.HTTPConnection(self.target, timeout=60)
        try:
            connection.request(self.command, self.path, body=body, headers=kept)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _answer(
        self, status: int, headers: list[tuple[str, str]], content: bytes, *, sent: int | None = None
    ) -> None:
        self.send_response(status)
        length = len(content)
        for name, value in headers:
            if name.lower() == "content-length":
                length = int(value)  # of a HEAD, whose body is not there
            elif name.lower() not in {"connection", "transfer-encoding", "date", "server"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content[:sent])
        if sent is not None and sent < len(content):
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815 - the names that http.server asks for

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        pass
