"""Turns any error into an application/problem+json answer (RFC 9457): what helps, and no internals."""

from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from api.errors import PROBLEMS, ProblemKind, kind_of, members_of, translated
from api.refusals import ApiError
from catalog.errors import CatalogError
from imagesets.errors import ImagesetError
from serving.errors import ServingError
from store.errors import StoreError
from vlm.errors import VlmError

PROBLEM_MEDIA_TYPE = "application/problem+json"
TRANSLATED = (
    StoreError,
    CatalogError,
    ImagesetError,
    VlmError,
    ServingError,
    ApiError,
    HTTPException,
    RequestValidationError,
    ClientDisconnect,
)
MAX_FIELD_ERRORS = 20


class ProblemResponse(JSONResponse):
    """A JSON body with the problem's own media type."""

    media_type = PROBLEM_MEDIA_TYPE


def answer_with_problems(app: FastAPI) -> None:
    """Let every error the rooms can raise be answered as a problem; the middleware has all others."""

    async def answer(request: Request, error: Exception) -> ProblemResponse:
        return problem_response(request, error)

    for error_type in TRANSLATED:
        app.add_exception_handler(error_type, answer)


def problem_response(request: Request, error: Exception) -> ProblemResponse:
    """The answer to a request that failed with this error."""
    error = translated(error)
    kind = kind_of(error)
    body = problem_body(error) | {
        "instance": request.url.path,
        "request_id": request.scope.get("state", {}).get("request_id"),
    }
    headers = dict(getattr(error, "headers", None) or {})
    if kind.retry_after_s is not None:
        headers["Retry-After"] = str(kind.retry_after_s)
    return ProblemResponse(body, kind.status, headers)


def problem_body(error: Exception) -> dict[str, Any]:
    """The members of a problem that do not depend on the request."""
    kind = kind_of(error)
    body = {
        "type": kind.type_uri,
        "title": kind.title,
        "status": kind.status,
        "detail": _detail(error, kind),
        "remedy": getattr(error, "remedy", None) or kind.remedy,
    }
    if isinstance(error, RequestValidationError):
        body["errors"] = _field_errors(error)
    return body | members_of(error, kind)


def _detail(error: Exception, kind: ProblemKind) -> str:
    if kind is PROBLEMS[Exception]:
        return "an error nobody foresaw; its cause is in the log of the service under the request id"
    if isinstance(error, RequestValidationError):
        return "; ".join(f"{field['field']}: {field['message']}" for field in _field_errors(error)[:3])
    return str(error) or kind.title


def _field_errors(error: RequestValidationError) -> list[dict[str, str]]:
    """Which field is wrong and why; never the value, which may be large or secret."""
    found = error.errors()[:MAX_FIELD_ERRORS]
    return [
        {"field": ".".join(str(part) for part in entry["loc"]), "message": entry["msg"]} for entry in found
    ]
