"""What OpenAPI says of a route beside its types: the problems it answers with, and an example of each."""

from collections import defaultdict
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

from api.decisions import OPEN, route_of
from api.errors import PROBLEMS, ProblemKind
from api.problems import PROBLEM_MEDIA_TYPE
from api.refusals import (
    ForbiddenError,
    ForeignHostError,
    ForeignOriginError,
    MissingCsrfTokenError,
    RateLimitedError,
    StorageFullError,
    UnauthenticatedError,
    UnreadableRequestError,
    UploadRefusedError,
    UploadTooLargeError,
    UrlRefusedError,
    UrlUnavailableError,
)
from api.schemas.shapes import Problem, example_of
from catalog.errors import CatalogUnavailableError, QuotaExceededError
from store.errors import BlobsUnavailableError

PROBLEM_REFERENCE = "#/components/schemas/Problem"
Responses = dict[int | str, dict[str, Any]]


FETCH_PROBLEMS = (
    UrlRefusedError,
    UrlUnavailableError,
    UploadTooLargeError,
    UploadRefusedError,
    StorageFullError,
    BlobsUnavailableError,
)
"""What can go wrong where the service fetches a file itself, beside what can be wrong with the file."""


def problems(*error_types: type[Exception]) -> Responses:
    """The `responses` of a route that can fail with these errors, and with the two that any route can."""
    kinds: dict[int, dict[str, ProblemKind]] = defaultdict(dict)
    for error_type in (*error_types, RequestValidationError, Exception):
        kind = PROBLEMS[error_type]
        kinds[kind.status][kind.slug] = kind
    return {status: _response(list(by_slug.values())) for status, by_slug in sorted(kinds.items())}


def binary(media_type: str, description: str) -> dict[str, Any]:
    """An OpenAPI request or response body of raw bytes."""
    return {
        "description": description,
        "content": {media_type: {"schema": {"type": "string", "format": "binary"}}},
    }


def ndjson(line: type[BaseModel], description: str) -> dict[str, Any]:
    """An OpenAPI response of JSON lines, each of this schema."""
    return {
        "description": description,
        "content": {
            "application/x-ndjson": {"schema": line.model_json_schema(), "example": example_of(line)}
        },
    }


def with_problem_schema(document: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document with the one schema that no route names by its type."""
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    document.setdefault("components", {}).setdefault("schemas", {})["Problem"] = schema
    return document


ANY_ROUTE = (UnreadableRequestError, ForeignHostError, CatalogUnavailableError)
CLOSED_ROUTE = (UnauthenticatedError, ForbiddenError, RateLimitedError)
CHANGING_ROUTE = (ForeignOriginError, MissingCsrfTokenError, QuotaExceededError, UploadTooLargeError)


def with_access(document: dict[str, Any]) -> dict[str, Any]:
    """The OpenAPI document with what every route asks of its caller, and how it refuses."""
    schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
    schemes["apiKey"] = {"type": "http", "scheme": "bearer", "description": "`condu keys create` makes one."}
    schemes["session"] = {
        "type": "apiKey",
        "in": "cookie",
        "name": "condu_session",
        "description": "What POST /v1/session sets; what changes something needs X-CSRF-Token beside it.",
    }
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            is_open = route_of(method.upper(), path).decision == OPEN
            operation["security"] = [{}] if is_open else [{"apiKey": []}, {"session": []}, {}]
            found = (*ANY_ROUTE, *(() if is_open else CLOSED_ROUTE))
            _add_problems(operation, (*found, *(() if method == "get" else CHANGING_ROUTE)))
    return document


def _add_problems(operation: dict[str, Any], error_types: tuple[type[Exception], ...]) -> None:
    for status, response in problems(*error_types).items():
        known = operation["responses"].setdefault(str(status), response)
        content = known.setdefault("content", {}).setdefault(
            PROBLEM_MEDIA_TYPE, {"schema": {"$ref": PROBLEM_REFERENCE}, "examples": {}}
        )
        added = response["content"][PROBLEM_MEDIA_TYPE]["examples"]
        content["examples"] = {**content.get("examples", {}), **added}


def _response(kinds: list[ProblemKind]) -> dict[str, Any]:
    examples = {kind.slug: {"summary": kind.title, "value": _example(kind)} for kind in kinds}
    content = {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": PROBLEM_REFERENCE}, "examples": examples}}
    return {"description": " · ".join(kind.title for kind in kinds), "content": content}


def _example(kind: ProblemKind) -> dict[str, Any]:
    return {
        "type": kind.type_uri,
        "title": kind.title,
        "status": kind.status,
        "detail": f"{kind.title}: what exactly, and where",
        "remedy": kind.remedy,
        "instance": "/v1/...",
        "request_id": "4d0b7f3a1c9e4e0c8f3a",
    } | dict.fromkeys(kind.members, "...")
