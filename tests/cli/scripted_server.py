"""A plain HTTP server that answers as a test says: breaks off, refuses, or asks to wait."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Seen:
    """The requests that arrived, in order."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []

    def __len__(self) -> int:
        return len(self.requests)


Answer = Callable[[BaseHTTPRequestHandler, int], None]  # (handler, how many requests came before)


@contextmanager
def scripted_server(answer: Answer) -> Iterator[tuple[str, Seen]]:
    """The URL of a server that lets `answer` answer, and what it saw."""
    seen = Seen()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            earlier = len(seen)
            seen.requests.append((self.command, self.path, dict(self.headers), body))
            answer(self, earlier)

        do_GET = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes = b"{}", **headers: str) -> None:
    """A whole answer."""
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def break_off(handler: BaseHTTPRequestHandler) -> None:
    """Cut the connection where it is."""
    handler.wfile.flush()
    handler.close_connection = True
    handler.connection.shutdown(2)
