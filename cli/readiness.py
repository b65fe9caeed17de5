"""Waiting for a service that has just been started."""

import time
from collections.abc import Callable
from typing import Any

from cli.client import Client
from cli.errors import CliError, ProblemError

LOOK_EVERY_S = 0.2
SETTLES_WITHIN_S = 30.0  # an api that answers while a worker still loads is given this long to get well


def wait_until_ready(url: str, *, goes_on: Callable[[], bool]) -> dict[str, Any] | None:
    """The health of the service: once it is well, or has answered for a while without getting well.

    Args:
        url: Where it will listen.
        goes_on: Asked before each look; when it says no, the wait is over and the answer is None.
    """
    answered_at: float | None = None
    with Client(url) as client:
        while goes_on():
            try:
                health = health_of(client)
            except CliError:
                time.sleep(LOOK_EVERY_S)
                continue
            answered_at = answered_at or time.monotonic()
            if health.get("status") == "ok" or time.monotonic() - answered_at > SETTLES_WITHIN_S:
                return health
            time.sleep(LOOK_EVERY_S)
    return None


def health_of(client: Client) -> dict[str, Any]:
    """How the service is; where that takes a key that is not here, whether it takes requests."""
    try:
        return client.health()
    except ProblemError as error:
        if error.kind not in {"unauthenticated", "forbidden"}:
            raise
        return client.ready()


def ailments(health: dict[str, Any]) -> list[str]:
    """What is not well, a line each."""
    parts = health.get("parts", {})
    return [f"{name}: {part.get('detail')}" for name, part in parts.items() if part.get("status") != "ok"]
