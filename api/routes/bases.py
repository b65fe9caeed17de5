"""Bases: register by upload or by download, list, show, remove."""

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response

from api.dependencies import BaseName, Installed, Services, room_of
from api.documentation import FETCH_PROBLEMS, binary, problems
from api.refusals import (
    InvalidRequestError,
    StorageFullError,
    UnsupportedBodyError,
    UploadRefusedError,
    UploadTooLargeError,
)
from api.registration import register_base
from api.schemas.bases import BaseAnswer, BaseList, RegisterBaseBody
from api.schemas.models import RemovedAnswer
from api.uploads import received_upload
from catalog.bases import BaseRecord, check_base_free, delete_base, find_base, list_bases
from catalog.errors import AlreadyExistsError, InvalidNameError, NoSuchRowError, StillInUseError
from catalog.names import check_name
from store.errors import BlobsUnavailableError, IncompatibleTensorsError, InvalidUploadError
from vlm.architecture import Architecture, resolve_architecture
from vlm.errors import PretrainedUnavailableError, UnknownArchitectureError, UnknownPretrainedError
from vlm.pretrained import fetch_pretrained, resolve_pretrained

router = APIRouter(prefix="/bases", tags=["bases"])
SWEPT_LATER = "its blobs stay on disk until the next sweep"

WEIGHTS_PROBLEMS = (
    InvalidNameError,
    AlreadyExistsError,
    UnknownArchitectureError,
    InvalidUploadError,
    IncompatibleTensorsError,
    BlobsUnavailableError,
)


@router.put(
    "/{base}",
    summary="Register a base by uploading its weights",
    status_code=201,
    response_description="The base is registered; 200 when it was before, with these very weights.",
    responses={
        **problems(
            *WEIGHTS_PROBLEMS, UploadTooLargeError, UploadRefusedError, UnsupportedBodyError, StorageFullError
        ),
        200: {"description": "The base was registered before, with these very weights.", "model": BaseAnswer},
    },
    openapi_extra={
        "requestBody": {**binary("application/octet-stream", "A safetensors file."), "required": True}
    },
)
async def put_base(
    *,
    base: BaseName,
    request: Request,
    response: Response,
    services: Installed,
    architecture: Annotated[
        str | None, Query(description="An architecture that open_clip knows by name.", examples=["ViT-B-16"])
    ] = None,
    config: Annotated[
        str | None, Query(description="An open_clip model config as JSON, in place of `architecture`.")
    ] = None,
) -> BaseAnswer:
    """Keep the safetensors file that is the body as the pre-trained model `base`.

    Every tensor is checked against the architecture before anything is kept: a missing, extra, misshaped or
    misdtyped tensor, a NaN or an infinite value is refused by name. Sending the same file under the same name
    again changes nothing.
    """
    check_name(base, "base")
    resolved = await to_thread.run_sync(_resolve, architecture, config)
    async with received_upload(request, services.uploads) as upload:
        record, is_new, warnings = await to_thread.run_sync(
            lambda: register_base(services, base, architecture=resolved, weights=upload)
        )
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/v1/bases/{base}"
    return base_answer(record, warnings)


@router.post(
    "",
    summary="Register a base by its published weights",
    status_code=201,
    responses=problems(
        *WEIGHTS_PROBLEMS, UnknownPretrainedError, PretrainedUnavailableError, *FETCH_PROBLEMS
    ),
)
def post_base(body: RegisterBaseBody, response: Response, services: Installed) -> BaseAnswer:
    """Let the service fetch weights that open_clip publishes, or a file by its URL, and keep them as a base.

    The answer comes when the weights are here, which may take minutes. A URL must lie below a source that the
    installation allows (`CONDU_FETCH_FROM`); weights of your own may also go to `PUT /v1/bases/{base}`.
    """
    if (body.pretrained is None) == (body.url is None):
        raise InvalidRequestError(
            "give either `pretrained` (a tag of open_clip) or `url` (of a safetensors file); upload weights "
            "of your own with PUT /v1/bases/{base}"
        )
    with services.catalog.snapshot() as session:
        check_base_free(session, body.name)
    if body.url is not None:
        record, warnings = _fetch_base(services, body, body.url)
    else:
        record, warnings = _publish_base(services, body, str(body.pretrained))
    response.headers["Location"] = f"/v1/bases/{body.name}"
    return base_answer(record, warnings)


@router.get("", summary="List the bases", responses=problems())
def get_bases(services: Installed) -> BaseList:
    """All bases that models can be made on, by name."""
    with services.catalog.snapshot() as session:
        return BaseList(bases=[base_answer(record) for record in list_bases(session)])


@router.get("/{base}", summary="Show a base", responses=problems(NoSuchRowError))
def get_base(base: BaseName, services: Installed) -> BaseAnswer:
    """One base: its digest, size, architecture and preprocessing."""
    with services.catalog.snapshot() as session:
        return base_answer(find_base(session, base))


@router.delete("/{base}", summary="Remove a base", responses=problems(NoSuchRowError, StillInUseError))
def remove_base(base: BaseName, services: Installed) -> RemovedAnswer:
    """Forget a base that no model is on."""
    with services.catalog.transaction() as session:
        delete_base(session, base)
    return RemovedAnswer(removed=base, detail=SWEPT_LATER)


def base_answer(record: BaseRecord, warnings: tuple[str, ...] = ()) -> BaseAnswer:
    """The record as the api shows it."""
    return BaseAnswer(
        name=record.name,
        digest=record.digest,
        architecture=record.architecture,
        parameters=record.num_parameters,
        size_bytes=record.size_bytes,
        config=record.config,
        preprocessing=record.preprocessing,
        created_at=record.created_at,
        warnings=list(warnings),
    )


def _fetch_base(services: Services, body: RegisterBaseBody, url: str) -> tuple[BaseRecord, tuple[str, ...]]:
    config = None if body.config is None else json.dumps(body.config)
    architecture = _resolve(body.architecture, config)
    with services.fetcher.fetched(url, room_of(services), body.sha256) as weights:
        record, _, warnings = register_base(
            services.noting_source(url), body.name, architecture=architecture, weights=weights
        )
    return record, warnings


def _publish_base(services: Services, body: RegisterBaseBody, tag: str) -> tuple[BaseRecord, tuple[str, ...]]:
    if body.architecture is None or body.config is not None:
        raise InvalidRequestError(
            "published weights go by the name of their architecture: give `architecture` and `pretrained`, "
            "and no `config`; upload weights of your own with PUT /v1/bases/{base}"
        )
    architecture = resolve_pretrained(body.architecture, tag)
    with tempfile.TemporaryDirectory(dir=services.uploads.folder) as folder:
        weights = fetch_pretrained(body.architecture, tag, Path(folder))
        record, _, warnings = register_base(services, body.name, architecture=architecture, weights=weights)
    return record, warnings


def _resolve(architecture: str | None, config: str | None) -> Architecture:
    if (architecture is None) == (config is None):
        raise InvalidRequestError("give either `architecture` (a name of open_clip) or `config` (its JSON)")
    if config is None:
        return resolve_architecture(name=architecture)
    return resolve_architecture(config=_json_object(config))


def _json_object(text: str) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequestError(
            "`config` is not JSON: send an open_clip model config, URL-encoded"
        ) from None
    if not isinstance(parsed, dict):
        raise InvalidRequestError("`config` is JSON but no object: send an open_clip model config")
    return parsed
