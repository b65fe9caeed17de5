"""What every request passes through: an id, a log line, security headers, a bound, a check of its origin.

Plain ASGI on purpose: Starlette's BaseHTTPMiddleware buffers between tasks, which would break streaming in
both directions.
"""

import ipaddress
import re
import time
import uuid
from collections.abc import Collection
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import problem_response
from api.refusals import ForeignHostError, ForeignOriginError, UploadTooLargeError

log = structlog.stdlib.get_logger("condu.api")

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
LIMIT_SCOPE_KEY = "condu.body_limit_bytes"
CALLER_LIMIT_SCOPE_KEY = "condu.caller_limit_bytes"


def allow_body(request: Request, limit_bytes: int) -> None:
    """Raise this request's body limit above the default, before the body is read; not above the caller's."""
    request.scope[LIMIT_SCOPE_KEY] = limit_bytes


class RequestContextMiddleware:
    """Gives each request an id, answers unexpected errors with a bare 500, and logs one line at the end."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        offered = Headers(scope=scope).get("x-request-id", "")
        request_id = offered if REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._run(scope, receive, send)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        started_at = time.perf_counter()
        status: int | None = None
        sent_bytes = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = scope["state"]["request_id"]
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            elif message["type"] == "http.response.body":
                sent_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except Exception as error:
            log.exception("request failed", method=scope["method"], path=scope["path"])
            if status is not None:
                raise  # too late for an answer: the server must cut the connection, and the client sees that
            await problem_response(Request(scope), error)(scope, receive, send_with_headers)
        finally:
            duration_ms = round((time.perf_counter() - started_at) * 1000, 1)
            key_id = scope["state"].get("key_id")
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                sent_bytes=sent_bytes,
                duration_ms=duration_ms,
                **({} if key_id is None else {"key": key_id}),
            )


class BodyLimitMiddleware:
    """Stops reading a body at its limit, whether or not the client declared its length.

    FastAPI's own limit answers in plain text; this one raises the error that becomes a problem body like all
    others.
    """

    def __init__(self, app: ASGIApp, default_limit_bytes: int) -> None:
        self.app = app
        self.default_limit_bytes = default_limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = declared_length(Headers(scope=scope))
        received_bytes = 0

        async def receive_within_limit() -> Message:
            nonlocal received_bytes
            limit_bytes = body_limit(scope, self.default_limit_bytes)
            if declared is not None and declared > limit_bytes:
                raise UploadTooLargeError(limit_bytes=limit_bytes)
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > limit_bytes:
                raise UploadTooLargeError(limit_bytes=limit_bytes)
            return message

        await self.app(scope, receive_within_limit, send)


def declared_length(headers: Headers) -> int | None:
    """The Content-Length a client declared, or None where it declared none that is a number."""
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def body_limit(scope: Scope, default_limit_bytes: int) -> int:
    """Most bytes that the body may have: what its route takes, and no more than its caller may send."""
    of_route: int = scope.get(LIMIT_SCOPE_KEY, default_limit_bytes)
    of_caller: int | None = scope.get(CALLER_LIMIT_SCOPE_KEY)
    return of_route if of_caller is None else min(of_route, of_caller)


class LocalCallersMiddleware:
    """Refuses browsers that act for another site.

    On loopback, whoever reaches the service may use it without a key, and a web page open in the same
    machine's browser can reach it; elsewhere a browser may be signed in. So a request that changes something
    must not carry a foreign Origin, and a service bound to loopback answers only to loopback names (a rebound
    DNS name would pass the Origin check).
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Collection[str]) -> None:
        self.app = app
        self.allowed_hosts = frozenset(allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            error = self._refusal(scope["method"], headers)
            if error is not None:
                await problem_response(Request(scope), error)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _refusal(self, method: str, headers: Headers) -> Exception | None:
        host = headers.get("host", "")
        if self.allowed_hosts and host_name(host) not in self.allowed_hosts:
            return ForeignHostError(host)
        origin = headers.get("origin")
        if method not in SAFE_METHODS and origin is not None and origin.partition("://")[2] != host:
            return ForeignOriginError(origin)
        return None


def host_name(authority: str) -> str:
    """The host of `host[:port]`, in lower case and without the brackets of an IPv6 address."""
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:  # brackets that do not close
        return ""


def is_loopback(bind_host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    if bind_host == "localhost":
        return True
    try:
        return ipaddress.ip_address(bind_host).is_loopback
    except ValueError:
        return False


def loopback_names(bind_host: str) -> frozenset[str]:
    """The host names a service bound to `bind_host` answers to; empty (any) when that is not loopback."""
    return frozenset({"localhost", "127.0.0.1", "::1", bind_host}) if is_loopback(bind_host) else frozenset()


def client_address(scope: Scope) -> str:
    """Where the request comes from; a trusted proxy has been looked behind already."""
    client = scope.get("client")
    return str(client[0]) if client else ""
