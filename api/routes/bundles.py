"""Bundles: a whole model as one file, made while it is downloaded, checked when it is uploaded."""

from collections.abc import Generator
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response

from api.bundle_facts import facts_of
from api.bundle_import import check_model_free, import_model
from api.dependencies import Installed, ModelName, RevisionNumber, Services
from api.documentation import binary, problems
from api.downloads import Content, content_response, unchanged_response
from api.refusals import (
    StorageFullError,
    UnsupportedBodyError,
    UnusableRangeError,
    UploadRefusedError,
    UploadTooLargeError,
)
from api.routes.models import model_answer
from api.schemas.bundles import BundleImportAnswer
from api.uploads import received_upload
from catalog.errors import AlreadyExistsError, InvalidNameError, NoSuchRowError
from store.bundles import BundleFile
from store.errors import BlobsUnavailableError, CorruptBlobError, InvalidBundleError, MissingBaseError
from vlm.errors import UnknownArchitectureError

router = APIRouter(tags=["bundles"])
MEDIA_TYPE = "application/octet-stream"


@router.get(
    "/models/{model}/bundle",
    summary="Download a whole model",
    response_class=Response,
    responses={
        **problems(NoSuchRowError, UnusableRangeError, CorruptBlobError),
        200: binary(MEDIA_TYPE, "The whole file; ETag is the digest of its index."),
        206: binary(MEDIA_TYPE, "The part that Range asked for."),
        304: {"description": "The client has this very bundle already (If-None-Match)."},
    },
)
def get_bundle(
    *,
    model: ModelName,
    request: Request,
    services: Installed,
    revision: RevisionNumber = None,
    without_base: Annotated[
        bool, Query(description="Name the base by its digest only; whoever imports it must have it.")
    ] = False,
) -> Response:
    """The model as one file that `POST /v1/bundles` takes in elsewhere.

    It holds the base, the unified delta, triggers, prototypes, buffers and the manifest of the head (or of
    `revision`), and what the catalog knows of its tasks. It is put together while it is sent: a broken
    download goes on with `Range` and `If-Range`. HEAD answers the same headers without the file.
    """
    pinned = services.heads.pin(model, revision)
    bundle = BundleFile(
        services.store.blobs,
        base=pinned.base.digest,
        head=None if pinned.revision is None else pinned.revision.manifest,
        with_base=not without_base,
        catalog=facts_of(services, pinned).model_dump(mode="json"),
        adapter=pinned.model.adapter,
    )
    headers = {"Condu-Revision": str(pinned.number or 0), "Condu-Base": pinned.base.digest}
    unchanged = unchanged_response(request, bundle.etag, headers)
    if unchanged is not None:
        return unchanged

    def read(start: int, stop: int) -> Generator[memoryview]:
        yield from bundle.read(start, stop)

    content = Content(
        size_bytes=bundle.size_bytes,
        digest=bundle.etag,
        read=read,
        filename=f"{model}-r{pinned.number or 0}.condu",
        headers=headers,
    )
    return content_response(request, content)


router.add_api_route(
    "/models/{model}/bundle", get_bundle, methods=["HEAD"], response_class=Response, include_in_schema=False
)


@router.post(
    "/bundles",
    summary="Import a whole model",
    status_code=201,
    response_description="The model is registered, its revision as the first one.",
    responses=problems(
        InvalidBundleError,
        MissingBaseError,
        UnknownArchitectureError,
        AlreadyExistsError,
        InvalidNameError,
        UploadTooLargeError,
        UploadRefusedError,
        UnsupportedBodyError,
        StorageFullError,
        BlobsUnavailableError,
    ),
    openapi_extra={"requestBody": {**binary(MEDIA_TYPE, "A bundle."), "required": True}},
)
async def post_bundle(
    *,
    request: Request,
    response: Response,
    services: Installed,
    name: Annotated[
        str | None,
        Query(description="What the model is to be called; without it, as in the bundle.", max_length=63),
    ] = None,
    base: Annotated[
        str | None,
        Query(
            description="What its base is to be called where that is new; without it, as in the bundle.",
            max_length=63,
        ),
    ] = None,
) -> BundleImportAnswer:
    """Register the model in the bundle that is the body, as it was where it was exported.

    Every byte is hashed and held against the digest that names it, the base against its architecture, and
    every task against the laws of its fusion, before anything is registered; then all of it appears at once.
    A base that is here already, under whatever name, is used again. The tasks' experts are the same to the
    last bit.
    """
    if services.caller.is_bound:
        services.caller.require_model(name or "")
    if name is not None:
        await to_thread.run_sync(_check_name, services, name)
    async with received_upload(request, services.uploads) as upload:
        imported = await to_thread.run_sync(lambda: import_model(services, upload, model=name, base=base))
    response.headers["Location"] = f"/v1/models/{imported.model}"
    answer = await to_thread.run_sync(lambda: model_answer(services, services.heads.pin(imported.model)))
    return BundleImportAnswer(**answer.model_dump(), bundle=imported.bundle, base_is_new=imported.base_is_new)


def _check_name(services: Services, name: str) -> None:
    """Refuse a name before gigabytes are received for nothing."""
    with services.catalog.snapshot() as session:
        check_model_free(session, name)
