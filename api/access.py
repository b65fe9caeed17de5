"""Asks the gate about every request, before anything of its body is read."""

from functools import partial
from http.cookies import CookieError, SimpleCookie

import structlog
from anyio import to_thread
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.callers import LOCAL, Caller
from api.decisions import OPEN, route_of
from api.gate import COOKIE, Gate
from api.middleware import CALLER_LIMIT_SCOPE_KEY, client_address
from api.problems import problem_response
from api.refusals import ApiError
from catalog.errors import CatalogError


class AccessMiddleware:
    """Puts the caller into the request's state, or answers that they may not.

    Not a dependency of the routes: FastAPI reads a JSON body before it looks at those, so that strangers
    could send what they like.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            caller = await self._admitted(scope)
        except (ApiError, CatalogError) as error:
            await problem_response(Request(scope), error)(scope, receive, send)
            return
        if caller.key is None:
            await self.app(scope, receive, send)
            return
        if caller.key.max_body_bytes is not None:
            scope[CALLER_LIMIT_SCOPE_KEY] = caller.key.max_body_bytes
        scope["state"]["key_id"] = caller.key.key_id
        with structlog.contextvars.bound_contextvars(key=caller.key.key_id):
            await self.app(scope, receive, _kept_private(send))

    async def _admitted(self, scope: Scope) -> Caller:
        method, headers = scope["method"], Headers(scope=scope)
        route = route_of(method, scope["path"])
        state = scope.setdefault("state", {})
        state["route"] = route.name
        caller = LOCAL
        if route.decision != OPEN:
            gate: Gate = scope["app"].state.services.gate
            ask = partial(
                gate.admit,
                headers,
                method=method,
                route=route,
                address=client_address(scope),
                cookie=_cookie(headers),
            )
            # Who shows nothing is looked up nowhere, so that on loopback nothing costs a change of threads.
            caller = await to_thread.run_sync(ask) if _shows_anything(headers) else ask()
        state["caller"] = caller
        return caller


def _shows_anything(headers: Headers) -> bool:
    return "authorization" in headers or COOKIE in headers.get("cookie", "")


def _cookie(headers: Headers) -> str:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return "" if morsel is None else morsel.value


def _kept_private(send: Send) -> Send:
    """Sends answers so that no cache in between gives what one key may see to another."""

    async def send_private(message: Message) -> None:
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message["headers"]}
            extra = [(b"vary", b"Authorization, Cookie")]
            if b"cache-control" not in names:
                extra.append((b"cache-control", b"private, no-cache"))
            message = {**message, "headers": [*message["headers"], *extra]}
        await send(message)

    return send_private
