"""What HTTP itself can refuse; all other errors come from the rooms below, and `api/errors.py` has them all.

ApiError (what can go wrong in HTTP itself; all else comes from the rooms below)
├── UnreadableRequestError  400  the framework could not read it
│   ├── NoSuchRouteError        404  no route has the path
│   └── MethodNotAllowedError   405  the route has no such method
├── UploadTooLargeError     413  the body exceeds the limit of its route
├── UnsupportedBodyError    415  the body is of a kind that its route does not take
├── UploadRefusedError      422  the body is not what its Content-Digest says
├── InvalidRequestError     422  fields that parse, but that make no sense together
├── UnusableRangeError      416  a Range beyond the end
├── StorageFullError        507  no room for the upload
├── ForeignHostError        421  the Host header names another machine
├── ForeignOriginError      403  a browser acts for another site
├── UnauthenticatedError    401  no API key, or none that is good
├── ForbiddenError          403  the key may not do this
├── MissingCsrfTokenError   403  a signed-in browser did not send its token
├── RateLimitedError        429  too many requests
├── UrlRefusedError         422  the service does not fetch from there
└── UrlUnavailableError     502  what a URL names could not be fetched
"""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

from starlette.exceptions import HTTPException


class ApiError(Exception):
    """A request that HTTP itself has to refuse; `headers`, where there are any, go with the answer."""


class UnreadableRequestError(ApiError):
    """The framework could not read the request."""

    def __init__(self, message: str, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.headers = headers


class NoSuchRouteError(UnreadableRequestError):
    """No route has the path."""


class MethodNotAllowedError(UnreadableRequestError):
    """The route of the path has no such method."""


class UploadTooLargeError(ApiError, HTTPException):
    """The body exceeds the limit of its route.

    It is an HTTPException as well because FastAPI turns every other error that rises while it reads a body
    into a 400.
    """

    def __init__(self, *, limit_bytes: int) -> None:
        HTTPException.__init__(self, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return f"the body is larger than the {self.limit_bytes} bytes that this route takes"


class UnsupportedBodyError(ApiError):
    """The body is of a kind that its route does not take."""


class UploadRefusedError(ApiError):
    """The received bytes are not those that the client meant to send."""


class InvalidRequestError(ApiError):
    """Fields that parse, but that make no sense, or none together."""


class UnusableRangeError(ApiError):
    """A Range header that lies beyond the end of what is there."""

    def __init__(self, *, size_bytes: int) -> None:
        super().__init__(f"the range lies beyond the {size_bytes} bytes there are")
        self.headers = {"Content-Range": f"bytes */{size_bytes}"}


class StorageFullError(ApiError):
    """No room is left for an upload."""


class ForeignHostError(ApiError):
    """A service bound to loopback was addressed under the name of another machine."""

    def __init__(self, host: str) -> None:
        super().__init__(f"this service answers to its loopback names only, not to {host[:80]!r}")


class ForeignOriginError(ApiError):
    """A browser asks for a change on behalf of another site."""

    def __init__(self, origin: str) -> None:
        super().__init__(f"a page of {origin[:80]!r} may not change anything here")


class UnauthenticatedError(ApiError):
    """No API key came with the request, or none that is good."""

    headers: Mapping[str, str] = MappingProxyType({"WWW-Authenticate": 'Bearer realm="condu"'})


class ForbiddenError(ApiError):
    """The key is good, but may not do this."""


class MissingCsrfTokenError(ApiError):
    """A browser that is signed in asks for a change without the token that only pages of ours know."""


class RateLimitedError(ApiError):
    """Too many requests in too short a time."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.headers = {"Retry-After": str(retry_after_s)}


class UrlRefusedError(ApiError):
    """The service does not fetch from there."""


class UrlUnavailableError(ApiError):
    """What a URL names could not be fetched."""
