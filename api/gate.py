"""Lets nobody in who may not: recognises keys and browser sessions, and counts requests."""

import hmac
import math
import threading
import time
from dataclasses import dataclass, field

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.datastructures import Headers

from api.callers import LOCAL, Caller
from api.decisions import OPEN, Decision, Route
from api.middleware import SAFE_METHODS, is_loopback
from api.refusals import (
    ForbiddenError,
    MethodNotAllowedError,
    MissingCsrfTokenError,
    NoSuchRouteError,
    RateLimitedError,
    UnauthenticatedError,
)
from catalog import Catalog, Settings
from catalog.errors import PepperMissingError
from catalog.keys import KeyRecord, find_usable_key, recognise_key, usable_keys
from catalog.peppers import Pepper, open_pepper
from catalog.sessions import csrf_token, session_key

COOKIE = "condu_session"
CSRF_HEADER = "x-csrf-token"
KEY_PREFIX = "condu_"
REMEMBERED_S = 1.0
"""For so long a key that was good is not looked up again; a revoked one is of use no longer than this."""
MAX_REMEMBERED = 4096
FAILURES_PER_MINUTE = 60
"""Wrong keys from one address, until all its keys are refused unseen for a while."""


class UnguardedError(Exception):
    """The service would listen where others reach it, and no key is there to tell them apart."""


def needs_keys(settings: Settings) -> bool:
    """Whether callers must identify themselves: everywhere but on loopback, and there if it is asked for."""
    return settings.require_keys or not is_loopback(settings.host)


def check_guarded(settings: Settings, catalog: Catalog) -> None:
    """Nothing, when the service may listen where the settings say.

    Raises:
        UnguardedError: It needs keys, and there is none that is good.
        PepperMissingError: There are keys, and none was made with this machine's pepper.
    """
    if not needs_keys(settings):
        return
    with catalog.snapshot() as session:
        keys = usable_keys(session)
    if not keys:
        raise UnguardedError(
            f"no API key is there, and {settings.host} "
            + ("is bound with CONDU_REQUIRE_KEYS" if is_loopback(settings.host) else "is not loopback")
        )
    pepper = open_pepper(settings)
    if pepper is None or all(found.pepper != pepper.mark for found in keys):
        raise PepperMissingError(
            "there are API keys, but none of them was made with this machine's pepper: give it the "
            "CONDU_KEY_PEPPER (or the file `pepper`) of the machine that made them, or make keys anew"
        )


@dataclass
class _Remembered:
    caller: Caller
    until: float


@dataclass
class Gate:
    """Decides for each request who makes it, and whether they may.

    Attributes:
        settings: The installation's.
        catalog: Where keys and sessions are looked up.
    """

    settings: Settings
    catalog: Catalog
    _remembered: dict[str, _Remembered] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.is_closed = needs_keys(self.settings)
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def admit(self, headers: Headers, *, method: str, route: Route, address: str, cookie: str) -> Caller:
        """The caller, who may do this.

        Raises:
            UnauthenticatedError: They did not identify themselves, or not with a key that is good.
            ForbiddenError: Their key may not do this.
            MissingCsrfTokenError: A browser did not say that a page of ours asks.
            RateLimitedError: They ask too often.
        """
        decision = self._decision(route)
        if decision == OPEN:
            return LOCAL
        presented = _presented(headers)
        caller = LOCAL
        if presented:
            caller = self._recognised(presented, address)
        elif cookie:
            caller = self._signed_in(cookie)
        if caller.key is None:
            if self.is_closed:
                raise UnauthenticatedError("this needs an API key, and none came with the request")
            return caller
        self._count(caller.key)
        if caller.csrf_token is not None and method not in SAFE_METHODS:
            _require_csrf_token(caller.csrf_token, headers.get(CSRF_HEADER, ""))
        _require_right(caller.key, route, decision)
        return caller

    def _decision(self, route: Route) -> Decision | None:
        if route.name == "GET /metrics" and self.settings.open_metrics:
            return OPEN
        return route.decision

    def identify(self, presented: str, address: str) -> KeyRecord:
        """The key, which somebody signs in with.

        Raises:
            UnauthenticatedError: It is not good.
            RateLimitedError: Too many that were not came from this address.
        """
        found = self._recognised(presented, address).key
        assert found is not None  # noqa: S101 - or it would have raised
        self._count(found)
        return found

    def pepper(self) -> Pepper | None:
        """The installation's, read anew: the first key may have been made after the service started."""
        return open_pepper(self.settings)

    def _recognised(self, presented: str, address: str) -> Caller:
        failures = RateLimitItemPerMinute(FAILURES_PER_MINUTE)
        if not self._limiter.test(failures, "failures", address):
            self._refuse_for_now(failures, "failures", address)
        pepper = self.pepper()
        caller = None
        if pepper is not None:
            mark = pepper.digest("remembered", presented)
            caller = self._recall(mark)
            if caller is None:
                with self.catalog.snapshot() as session:
                    found = recognise_key(session, pepper, presented)
                caller = None if found is None else self._remember(mark, Caller(found))
        if caller is None:
            self._limiter.hit(failures, "failures", address)
            raise UnauthenticatedError("the API key is not one, was revoked, or has expired")
        return caller

    def _signed_in(self, token: str) -> Caller:
        """Who signed in; nobody, where the session is over, for a browser cannot help sending its cookie."""
        pepper = self.pepper()
        if pepper is None:
            return LOCAL
        mark = pepper.digest("remembered", token)
        caller = self._recall(mark)
        if caller is not None:
            return caller
        with self.catalog.snapshot() as session:
            key_id = session_key(session, pepper, token)
            found = None if key_id is None else find_usable_key(session, key_id)
        return LOCAL if found is None else self._remember(mark, Caller(found, csrf_token(pepper, token)))

    def _recall(self, mark: str) -> Caller | None:
        remembered = self._remembered.get(mark)
        return None if remembered is None or remembered.until < time.monotonic() else remembered.caller

    def _remember(self, mark: str, caller: Caller) -> Caller:
        with self._lock:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[mark] = _Remembered(caller, time.monotonic() + REMEMBERED_S)
        return caller

    def forget(self) -> None:
        """Look every key and session up again from now on: one was revoked here, or signed out."""
        with self._lock:
            self._remembered.clear()

    def _count(self, found: KeyRecord) -> None:
        per_minute = found.requests_per_minute or self.settings.requests_per_minute
        rate = RateLimitItemPerMinute(per_minute)
        if not self._limiter.hit(rate, "key", found.key_id):
            self._refuse_for_now(rate, "key", found.key_id)

    def _refuse_for_now(self, rate: RateLimitItemPerMinute, *whose: str) -> None:
        reset_at, _ = self._limiter.get_window_stats(rate, *whose)
        wait_s = max(1, math.ceil(reset_at - time.time()))
        what = "wrong keys from this address" if whose[0] == "failures" else "requests of this key"
        raise RateLimitedError(f"more than {rate.amount} {what} within a minute", retry_after_s=wait_s)


def _presented(headers: Headers) -> str:
    """The API key in the Authorization header; what is no key of ours, such as a proxy's, is left alone."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    credentials = credentials.strip()
    return credentials if scheme.lower() == "bearer" and credentials.startswith(KEY_PREFIX) else ""


def _require_csrf_token(expected: str, sent: str) -> None:
    if not hmac.compare_digest(expected.encode(), sent.encode()):
        raise MissingCsrfTokenError("a signed-in browser must send X-CSRF-Token with what changes something")


def _require_right(found: KeyRecord, route: Route, decision: Decision | None) -> None:
    if decision is None:
        if route.methods:
            allowed = ", ".join(sorted(route.methods))
            raise MethodNotAllowedError(f"this route takes {allowed}", {"Allow": allowed})
        if found.role != "admin" or found.models is not None:
            raise NoSuchRouteError("no route has this path", {})
        return
    if not found.may(decision.role):
        raise ForbiddenError(f"this needs the role {decision.role}, and the key has {found.role}")
    if decision.reach == "whole" and found.models is not None:
        raise ForbiddenError(
            "this is about the whole installation, and the key is bound to " + ", ".join(found.models)
        )
    if decision.reach == "model" and not found.may_touch(route.model or ""):
        raise ForbiddenError(f"the key may not touch model {(route.model or '')[:80]!r}")
