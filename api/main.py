"""Serves the api until it is told to stop."""

import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.logs import configure_logs
from catalog import Settings

STOP_TIMEOUT_S = 20
"""How long a stopping server waits for answers that are being given."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Server(uvicorn.Server):
    """A server that ends endless answers (events of a job) when it stops, and does not wait for clients."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, on_ready: Callable[[str], None]) -> None:
        super().__init__(config)
        self._app = app
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell the address, which is only known now when the port was 0."""
        await super().startup(sockets)
        if self.started:
            self._on_ready(_url(self.servers[0].sockets[0].getsockname()))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop when the answers that are being given are finished."""
        self._app.state.stopping.set()
        await super().shutdown(sockets)


def run(settings: Settings, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM, then finish what is being answered and return.

    Args:
        settings: Of the installation; the address among them.
        on_ready: Called with the URL as soon as requests are taken.
    """
    configure_logs()
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        # Else anybody could say that they come from anywhere.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        timeout_graceful_shutdown=STOP_TIMEOUT_S,
    )
    # uvicorn raises the signal once more when it is done; ours must then be a stop, not a death.
    before = {number: signal.signal(number, _ignore) for number in STOP_SIGNALS}
    try:
        Server(config, app, on_ready).run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _url(address: tuple[str, int]) -> str:
    host, port = address[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _ignore(number: int, frame: FrameType | None) -> None:
    """The server has stopped already."""
