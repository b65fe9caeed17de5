"""The one table from errors to HTTP: what went wrong in any room, as status, `type` and remedy (RFC 9457)."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import catalog.errors
import imagesets.errors
import serving.errors
import store.errors
import vlm.errors
from api.refusals import (
    ApiError,
    ForbiddenError,
    ForeignHostError,
    ForeignOriginError,
    InvalidRequestError,
    MethodNotAllowedError,
    MissingCsrfTokenError,
    NoSuchRouteError,
    RateLimitedError,
    StorageFullError,
    UnauthenticatedError,
    UnreadableRequestError,
    UnsupportedBodyError,
    UnusableRangeError,
    UploadRefusedError,
    UploadTooLargeError,
    UrlRefusedError,
    UrlUnavailableError,
)


@dataclass(frozen=True)
class ProblemKind:
    """How one kind of error is answered.

    Attributes:
        slug: Last part of the stable `type`; clients may rely on it for ever.
        remedy: What the caller can do, where the error itself does not say it.
        members: Attributes of the error that become members of the body.
        retry_after_s: Seconds for a Retry-After header, where the same call may succeed later.
    """

    slug: str
    status: int
    title: str
    remedy: str
    members: tuple[str, ...] = ()
    retry_after_s: int | None = None

    @property
    def type_uri(self) -> str:
        """The `type` of the body; the service answers a GET of it with what the kind means."""
        return f"/problems/{self.slug}"


_VERIFY = (
    "run `condu verify` to list all damage, then restore the data folder from a backup or roll the model back"
)

PROBLEMS: Mapping[type[Exception], ProblemKind] = MappingProxyType(
    {
        # store
        store.errors.NotFoundError: ProblemKind("missing-blob", 500, "Stored bytes are missing", _VERIFY),
        store.errors.IncompatibleTensorsError: ProblemKind(
            "incompatible-tensors",
            422,
            "The checkpoint does not fit its base",
            "upload a checkpoint of the base's architecture that was fine-tuned from this base",
            members=("tensor", "expected", "got"),
        ),
        store.errors.InvalidUploadError: ProblemKind(
            "invalid-weights",
            422,
            "The weights cannot be used",
            "save the state dict with safetensors.torch.save_file and upload that file",
        ),
        store.errors.InvalidBundleError: ProblemKind(
            "invalid-bundle",
            422,
            "The bundle cannot be used",
            "export the model again with `condu model export` and send that file whole",
        ),
        store.errors.MissingBaseError: ProblemKind(
            "missing-base",
            409,
            "The bundle's base is not here",
            "export the bundle again with its base, or register the base of that digest first",
            members=("base",),
        ),
        store.errors.CorruptBlobError: ProblemKind(
            "corrupt-blob", 500, "Stored bytes are damaged", _VERIFY, members=("expected", "found")
        ),
        store.errors.UnsupportedFormatError: ProblemKind(
            "unsupported-format",
            500,
            "Stored by a version this one cannot read",
            "run the version of condu that wrote this data folder, or a newer one",
        ),
        store.errors.BlobsUnavailableError: ProblemKind(
            "storage-unavailable",
            507,
            "The storage refused the operation",
            "free disk space (`condu sweep --delete`) or mend the storage, then try again",
            retry_after_s=30,
        ),
        store.errors.StorageUnreachableError: ProblemKind(
            "storage-unreachable",
            503,
            "The object storage does not answer",
            "bring the object storage back, then try again; the log of the service says what it answered",
            retry_after_s=5,
        ),
        store.errors.UnsuitableStorageError: ProblemKind(
            "unsuitable-storage",
            500,
            "The object storage cannot be used",
            "use a storage that honours conditional puts and ranges, or a folder (CONDU_OBJECTS_URL)",
            members=("fault",),
        ),
        # catalog
        catalog.errors.AlreadyExistsError: ProblemKind(
            "already-exists", 409, "The name is taken", "choose another name, or remove what bears it"
        ),
        catalog.errors.NoSuchRowError: ProblemKind(
            "not-found", 404, "There is nothing of that name", "list what exists, and check the spelling"
        ),
        catalog.errors.StillInUseError: ProblemKind(
            "still-in-use", 409, "Something else needs it", "remove or finish what needs it first"
        ),
        catalog.errors.InvalidNameError: ProblemKind(
            "invalid-name",
            422,
            "The name cannot be used",
            "use a-z 0-9 . _ - and begin and end with a letter or digit",
        ),
        catalog.errors.RollbackError: ProblemKind(
            "no-rollback",
            409,
            "The head cannot move there",
            "list the model's revisions and name one that is not expired",
        ),
        catalog.errors.DatasetGoneError: ProblemKind(
            "dataset-gone", 410, "The data set's bytes were released", "upload the data set again"
        ),
        catalog.errors.StaleHeadError: ProblemKind(
            "stale-head",
            409,
            "The model changed meanwhile",
            "look at the model's head, then try again",
            retry_after_s=1,
        ),
        catalog.errors.SweptMeanwhileError: ProblemKind(
            "swept-meanwhile",
            503,
            "A sweep removed what was just written",
            "send the same request again",
            retry_after_s=2,
        ),
        catalog.errors.StaleAttemptError: ProblemKind(
            "stale-attempt", 409, "Another attempt owns the job", "look at the job's state"
        ),
        catalog.errors.QuotaExceededError: ProblemKind(
            "quota-exceeded",
            403,
            "The key may have no more",
            "finish or remove some of what it has (bytes are freed by a sweep), or ask for a larger quota",
            members=("quota", "limit", "used"),
        ),
        catalog.errors.PepperMissingError: ProblemKind(
            "pepper-missing",
            500,
            "API keys cannot be made or checked",
            "give this machine the pepper that the keys were made with (docs/security.md)",
        ),
        catalog.errors.OutdatedSchemaError: ProblemKind(
            "outdated-schema",
            503,
            "The catalog is of another version",
            "stop the service and run `condu migrate`",
        ),
        catalog.errors.CatalogUnavailableError: ProblemKind(
            "catalog-unavailable",
            503,
            "The catalog cannot be used now",
            "free disk space (`condu sweep --delete`) or bring the database back, then try again",
            retry_after_s=5,
        ),
        # imagesets
        imagesets.errors.InvalidArchiveError: ProblemKind(
            "invalid-archive",
            422,
            "The archive cannot be used",
            "send a .tar, .tar.gz or .zip with one folder of images per class",
            members=("member",),
        ),
        # vlm
        vlm.errors.UnknownArchitectureError: ProblemKind(
            "unknown-architecture",
            422,
            "No such architecture",
            "name an architecture of open_clip, or send an open_clip model config",
        ),
        vlm.errors.UnknownPretrainedError: ProblemKind(
            "unknown-pretrained",
            422,
            "No such published weights",
            "name a published tag, or upload the weights",
        ),
        vlm.errors.PretrainedUnavailableError: ProblemKind(
            "pretrained-unavailable",
            503,
            "The published weights could not be fetched",
            "try again, or upload the weights (`PUT /v1/bases/{base}`)",
            retry_after_s=30,
        ),
        vlm.errors.ImageRejectedError: ProblemKind(
            "image-rejected",
            422,
            "The image cannot be used",
            "send a JPEG, PNG or WEBP image",
            members=("reason",),
        ),
        vlm.errors.InvalidLabelsError: ProblemKind(
            "invalid-labels", 422, "The labels cannot be used", "give a list of distinct, non-blank labels"
        ),
        vlm.errors.InvalidTemplatesError: ProblemKind(
            "invalid-templates", 422, "The templates cannot be used", "each template holds {} exactly once"
        ),
        vlm.errors.InvalidOptionsError: ProblemKind(
            "invalid-options", 422, "The options cannot be met", "leave the option out to get its default"
        ),
        vlm.errors.NoLabelsError: ProblemKind(
            "no-labels", 422, "There is nothing to choose among", "give labels, or learn a task first"
        ),
        vlm.errors.InvalidPrototypesError: ProblemKind(
            "invalid-prototypes", 500, "Stored prototypes are damaged", _VERIFY
        ),
        # api
        UploadTooLargeError: ProblemKind(
            "too-large",
            413,
            "The body is too large",
            "send less, or raise the limit of the installation (CONDU_UPLOAD_LIMIT_BYTES)",
            members=("limit_bytes",),
        ),
        UnsupportedBodyError: ProblemKind(
            "unsupported-body", 415, "This kind of body is not taken here", "see the route in /openapi.json"
        ),
        UploadRefusedError: ProblemKind("damaged-upload", 422, "The body arrived damaged", "send it again"),
        InvalidRequestError: ProblemKind(
            "invalid-request", 422, "The request is not valid", "see the route in /openapi.json"
        ),
        serving.errors.UnknownTaskError: ProblemKind(
            "unknown-task",
            404,
            "There is no such task",
            "name a task that the revision holds",
            members=("known_tasks",),
        ),
        UnusableRangeError: ProblemKind(
            "unusable-range", 416, "The range is beyond the end", "ask for the whole"
        ),
        StorageFullError: ProblemKind(
            "storage-full",
            507,
            "There is no room for the upload",
            "free disk space (`condu sweep --delete`), then try again",
        ),
        ForeignHostError: ProblemKind(
            "foreign-host",
            421,
            "Addressed under a foreign name",
            "use the address the service listens on, or bind it wider",
        ),
        ForeignOriginError: ProblemKind(
            "foreign-origin",
            403,
            "A page of another site may not do this",
            "call the service from its own pages or a client",
        ),
        UnauthenticatedError: ProblemKind(
            "unauthenticated",
            401,
            "An API key is needed",
            "send `Authorization: Bearer KEY` (commands: CONDU_API_KEY); `condu keys create` makes one",
        ),
        ForbiddenError: ProblemKind(
            "forbidden", 403, "The key may not do this", "use a key with that role and that model"
        ),
        MissingCsrfTokenError: ProblemKind(
            "missing-csrf-token",
            403,
            "The page did not identify itself",
            "send the csrf_token of GET /v1/session as X-CSRF-Token",
        ),
        RateLimitedError: ProblemKind(
            "rate-limited", 429, "Too many requests", "ask again after the seconds in Retry-After"
        ),
        UrlRefusedError: ProblemKind(
            "url-refused",
            422,
            "The service does not fetch from there",
            "upload the file, or let the installation allow its source (CONDU_FETCH_FROM)",
        ),
        UrlUnavailableError: ProblemKind(
            "url-unavailable",
            502,
            "The URL could not be fetched",
            "try the URL yourself, then again; or upload the file",
        ),
        NoSuchRouteError: ProblemKind(
            "no-such-route", 404, "There is no such route", "see /openapi.json for the routes"
        ),
        MethodNotAllowedError: ProblemKind(
            "method-not-allowed", 405, "The route has no such method", "see /openapi.json for its methods"
        ),
        UnreadableRequestError: ProblemKind(
            "unreadable-request", 400, "The request cannot be read", "see the route in /openapi.json"
        ),
        # the frameworks
        RequestValidationError: ProblemKind(
            "invalid-request", 422, "The request is not valid", "correct the fields that `errors` names"
        ),
        serving.errors.OverloadedError: ProblemKind(
            "overloaded", 503, "Too much waits already", "ask again after the seconds in Retry-After"
        ),
        serving.errors.DeadlineExceededError: ProblemKind(
            "deadline-exceeded", 504, "The answer did not come in time", "ask again, or allow more time"
        ),
        serving.errors.DeviceStuckError: ProblemKind(
            "device-stuck",
            503,
            "The device hung",
            "ask again; if it happens again, restart the service",
            retry_after_s=1,
        ),
        serving.errors.DeviceMemoryError: ProblemKind(
            "device-memory",
            503,
            "The device has too little memory",
            "lower CONDU_EXPERT_CACHE_BYTES, or use a device with more memory",
        ),
        ClientDisconnect: ProblemKind("client-gone", 400, "The client went away", "send the request again"),
        Exception: ProblemKind(
            "internal-error",
            500,
            "The service failed",
            "try again; if it lasts, look into the log of the service under the request id",
        ),
    }
)


def kind_of(error: Exception) -> ProblemKind:
    """The entry for an error: its own, or its nearest ancestor's; at last the one for what nobody foresaw."""
    return next(PROBLEMS[ancestor] for ancestor in type(error).__mro__ if ancestor in PROBLEMS)


def translated(error: Exception) -> Exception:
    """The framework's own refusals as the error that says what they mean; any other error as it is."""
    if not isinstance(error, HTTPException) or isinstance(error, ApiError):
        return error
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.NOT_FOUND:
        return NoSuchRouteError("no route has this path", headers)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return MethodNotAllowedError(f"this route takes {headers.get('Allow', 'other methods')}", headers)
    return UnreadableRequestError(str(error.detail), headers)


def members_of(error: Exception, kind: ProblemKind) -> dict[str, Any]:
    """The members that only this kind of problem has."""
    return {name: value for name in kind.members if (value := getattr(error, name)) is not None}
