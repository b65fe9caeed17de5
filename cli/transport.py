"""One HTTP connection to the service: errors translated, retries where a repeat cannot do harm."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2
import stamina

from cli.errors import CommandUsageError, ProblemError, ServerUnreachableError

# An answer may need an expert rebuilt and a batch classified on a slow CPU before its first byte.
READ_TIMEOUT_S = 600.0
CONNECT_TIMEOUT_S = 5.0
MAX_ATTEMPTS = 4
PASSING_STATUSES = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
MAX_RETRY_AFTER_S = 30.0

NEXT_COMMANDS = {
    "missing-blob": "condu verify",
    "corrupt-blob": "condu verify",
    "storage-full": "condu sweep",
    "storage-unavailable": "condu sweep",
    "dataset-gone": "condu dataset add FILE.tar",
    "still-in-use": "condu jobs list",
    "outdated-schema": "condu migrate",
    "missing-base": "condu base list",
    "unauthenticated": "condu keys create NAME --role read",
    "quota-exceeded": "condu jobs list",
}
LISTS = {
    "/v1/bases": "condu base list",
    "/v1/models": "condu model list",
    "/v1/bundles": "condu model list",
    "/v1/datasets": "condu dataset list",
    "/v1/jobs": "condu jobs list",
}


@dataclass(frozen=True)
class Call:
    """One request. `content` makes a fresh body for each attempt, so that a retry sends it from the start."""

    method: str
    path: str
    params: Mapping[str, Any] | None = None
    json: Any = None
    files: Any = None
    content: Callable[[], Iterator[bytes]] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    may_repeat: bool = False
    read_timeout_s: float = READ_TIMEOUT_S

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments for the HTTP client."""
        optional: dict[str, Any] = {"json": self.json, "files": self.files, "params": self.params}
        if self.content is not None:
            optional["content"] = self.content()
        return {
            "headers": dict(self.headers),
            "timeout": httpx2.Timeout(self.read_timeout_s, connect=CONNECT_TIMEOUT_S),
            **{name: value for name, value in optional.items() if value is not None},
        }


class Transport:
    """Sends calls to one service and raises what a person can act on."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.api_key = os.environ.get("CONDU_API_KEY", "").strip()
        try:
            # A proxy named by the environment cannot reach this machine's own loopback.
            self._http = httpx2.Client(
                base_url=self.url, trust_env=not is_loopback(self.url), headers=self._identity()
            )
        except (httpx2.InvalidURL, ValueError) as error:
            raise CommandUsageError(
                f"{url!r} is not a URL", detail=str(error), remedy="give one such as http://127.0.0.1:8000"
            ) from error

    def _identity(self) -> dict[str, str]:
        """The header with the API key, where the environment has one; it goes to this service only."""
        if not self.api_key:
            return {}
        if not self.api_key.isascii() or not self.api_key.isprintable():
            raise CommandUsageError("CONDU_API_KEY is no API key", next_command="condu keys create --help")
        return {"Authorization": f"Bearer {self.api_key}"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def send(self, call: Call) -> httpx2.Response:
        """The answer, read whole; ProblemError when the service refused, ServerUnreachableError."""
        for attempt in self._attempts(may_repeat=call.may_repeat):
            with attempt, self._translated():
                return checked(self._http.request(call.method, call.path, **call.arguments()))
        raise AssertionError("the last attempt returns or raises")

    @contextmanager
    def stream(self, call: Call) -> Iterator[httpx2.Response]:
        """The answer while it arrives. Asking is retried, reading is not: the reader knows how."""
        with self._translated():
            response = self._open(call)
            try:
                yield response
            finally:
                response.close()

    @contextmanager
    def events(self, path: str, *, last_event_id: str) -> Iterator[Iterator[httpx2.ServerSentEvent]]:
        """The server-sent events of `path` after `last_event_id`."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": last_event_id} if last_event_id else {}
        with self.stream(Call("GET", path, headers=headers, may_repeat=True)) as response:
            yield iter(httpx2.EventSource(response))

    def _open(self, call: Call) -> httpx2.Response:
        for attempt in self._attempts(may_repeat=call.may_repeat):
            with attempt, self._translated():
                request = self._http.build_request(call.method, call.path, **call.arguments())
                return checked(self._http.send(request, stream=True))
        raise AssertionError("the last attempt returns or raises")

    def _attempts(self, *, may_repeat: bool) -> Iterator[Any]:
        def waits(error: Exception) -> bool | float:
            return retry_wait(error, may_repeat=may_repeat)

        return iter(
            stamina.retry_context(
                on=waits, attempts=MAX_ATTEMPTS, timeout=60, wait_initial=0.2, wait_jitter=0.2
            )
        )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except httpx2.TransportError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx2.TransportError) -> ServerUnreachableError:
        sent_nothing = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
        what = "there is no condu service at" if sent_nothing else "the connection broke to"
        return ServerUnreachableError(
            f"{what} {self.url}",
            detail=str(error) or type(error).__name__,
            remedy="start the service, or name another with --url or CONDU_URL",
            next_command="condu serve",
        )


def retry_wait(error: Exception, *, may_repeat: bool) -> bool | float:
    """Whether to try again, or the seconds the server asked to wait before that.

    A connection that was never made did nothing, so any call may be made again; once bytes were sent, only
    calls that change nothing, or the same thing twice, are repeated.
    """
    if isinstance(error, ServerUnreachableError):
        return may_repeat or isinstance(error.__cause__, httpx2.ConnectError)
    if isinstance(error, ProblemError) and may_repeat and error.status in PASSING_STATUSES:
        return min(error.retry_after_s, MAX_RETRY_AFTER_S) or True
    return False


def checked(response: httpx2.Response) -> httpx2.Response:
    """The response, when it is not a problem."""
    if response.status_code < HTTPStatus.BAD_REQUEST:
        return response
    response.read()
    raise problem_of(response)


def problem_of(response: httpx2.Response) -> ProblemError:
    """The refusal as an error; an answer that is no problem body is quoted."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        body = {"title": f"HTTP {response.status_code}", "detail": response.text[:500]}
    error = problem_error(body)
    error.status = response.status_code
    error.retry_after_s = seconds(response.headers.get("Retry-After"))
    return error


def problem_error(body: dict[str, Any]) -> ProblemError:
    """A problem body (RFC 9457) as an error, with the command that shows what exists."""
    error = ProblemError(
        str(body.get("title") or "the service refused"),
        detail=str(body.get("detail") or ""),
        remedy=str(body.get("remedy") or ""),
        body=body,
    )
    error.next_command = next_command(error.kind, str(body.get("instance") or ""))
    return error


def next_command(kind: str, instance: str) -> str:
    """What to type after a problem of this kind about this resource; nothing where no command helps."""
    model, _, rest = instance.removeprefix("/v1/models/").partition("/")
    about_a_model = instance.startswith("/v1/models/")
    if kind in {"not-found", "unknown-task"} and about_a_model:
        return (
            f"condu task list {model}"
            if rest.startswith("tasks/") or kind == "unknown-task"
            else "condu model list"
        )
    if kind in {"not-found", "already-exists"}:
        return next((command for prefix, command in LISTS.items() if instance.startswith(prefix)), "")
    if kind in {"no-rollback", "stale-head"} and about_a_model:
        return f"condu model show {model}"
    return NEXT_COMMANDS.get(kind, "")


def seconds(header: str | None) -> float:
    """A Retry-After header in seconds; 0 when it is missing or a date."""
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0


def is_loopback(url: str) -> bool:
    """Whether the URL names this very machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
