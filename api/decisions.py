"""Who may do what: one decision a route; what is not decided, nobody but an admin of everything may do."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Literal

from starlette.routing import compile_path

Reach = Literal["open", "model", "shared", "whole"]


@dataclass(frozen=True)
class Decision:
    """What a caller needs for a route.

    Attributes:
        role: The least role; no role at all for what is open.
        reach: `open` needs no key. `model` is about the model in the path, which must be one of the key's.
            `shared` is for all keys; a key that is bound to models sees and makes only what is theirs.
            `whole` is about the whole installation, which a key that is bound to models may not touch.
    """

    role: Literal["", "read", "submit", "admin"]
    reach: Reach


OPEN = Decision("", "open")
_READ, _SUBMIT, _ADMIN = (Decision(role, "model") for role in ("read", "submit", "admin"))

DECISIONS: Mapping[str, Decision] = MappingProxyType(
    {
        # what says nothing of what is stored
        "GET /openapi.json": OPEN,
        "GET /problems/{slug}": OPEN,
        "GET /v1/health/live": OPEN,
        "GET /v1/health/ready": OPEN,
        "POST /v1/session": OPEN,  # the key is in the body
        "DELETE /v1/session": OPEN,
        "GET /v1/session": Decision("read", "shared"),
        # bases
        "GET /v1/bases": Decision("read", "shared"),
        "POST /v1/bases": Decision("submit", "shared"),
        "GET /v1/bases/{base}": Decision("read", "shared"),
        "PUT /v1/bases/{base}": Decision("submit", "shared"),
        "DELETE /v1/bases/{base}": Decision("admin", "whole"),
        # models
        "GET /v1/models": Decision("read", "shared"),
        "POST /v1/models": Decision("submit", "shared"),
        "POST /v1/bundles": Decision("submit", "shared"),
        "GET /v1/models/{model}": _READ,
        "DELETE /v1/models/{model}": _ADMIN,
        "GET /v1/models/{model}/adapter": _READ,
        "GET /v1/models/{model}/bundle": _READ,
        "GET /v1/models/{model}/overlap": _READ,
        "GET /v1/models/{model}/routing": _READ,
        "GET /v1/models/{model}/revisions": _READ,
        "POST /v1/models/{model}/rollback": _ADMIN,
        "POST /v1/models/{model}/classify": _READ,
        # tasks
        "GET /v1/models/{model}/tasks": _READ,
        "POST /v1/models/{model}/tasks": _SUBMIT,
        "GET /v1/models/{model}/tasks/{task}": _READ,
        "DELETE /v1/models/{model}/tasks/{task}": _ADMIN,
        "GET /v1/models/{model}/tasks/{task}/checkpoint": _READ,
        "PUT /v1/models/{model}/tasks/{task}/checkpoint": _SUBMIT,
        "POST /v1/models/{model}/tasks/{task}/checkpoint": _SUBMIT,
        # data sets
        "GET /v1/datasets": Decision("read", "shared"),
        "PUT /v1/datasets": Decision("submit", "shared"),
        "POST /v1/datasets": Decision("submit", "shared"),
        "GET /v1/datasets/{digest}": Decision("read", "shared"),
        "DELETE /v1/datasets/{digest}": Decision("admin", "whole"),
        # jobs
        "GET /v1/jobs": Decision("read", "shared"),
        "GET /v1/jobs/{job_id}": Decision("read", "shared"),
        "GET /v1/jobs/{job_id}/events": Decision("read", "shared"),
        "POST /v1/jobs/{job_id}/cancel": Decision("submit", "shared"),
        # the installation
        "GET /v1/health": Decision("read", "whole"),
        "GET /v1/stats": Decision("read", "whole"),
        "GET /metrics": Decision("read", "whole"),
        "POST /v1/verify": Decision("admin", "whole"),
        "POST /v1/sweep": Decision("admin", "whole"),
        "GET /v1/keys": Decision("admin", "whole"),
        "POST /v1/keys": Decision("admin", "whole"),
        "DELETE /v1/keys/{key_id}": Decision("admin", "whole"),
        "GET /v1/audit": Decision("admin", "whole"),
    }
)


@dataclass(frozen=True)
class Route:
    """What a request is for.

    Attributes:
        name: `GET /v1/models/{model}`; empty where nothing is decided about the path.
        decision: None where nothing is decided about this method of the path.
        model: The model in the path.
        methods: Those of the path that are decided.
    """

    name: str
    decision: Decision | None
    model: str | None
    methods: frozenset[str]


def route_of(method: str, path: str) -> Route:
    """The route that a request is for; HEAD is decided as GET."""
    wanted = "GET" if method == "HEAD" else method
    for pattern, template, methods in _paths():
        match = pattern.match(path)
        if match is not None:
            name = f"{wanted} {template}"
            return Route(name, DECISIONS.get(name), match.groupdict().get("model"), methods)
    return Route("", None, None, frozenset())


@cache
def _paths() -> tuple[tuple[re.Pattern[str], str, frozenset[str]], ...]:
    """Every decided path as the router itself would match it, with its methods."""
    by_path: dict[str, set[str]] = {}
    for name in DECISIONS:
        method, path = name.split(" ")
        by_path.setdefault(path, set()).add(method)
    return tuple((compile_path(path)[0], path, frozenset(methods)) for path, methods in by_path.items())
