"""Experts as files: a task's fine-tuned model, rebuilt while it is downloaded."""

from collections.abc import Generator

from fastapi import APIRouter, Request, Response

from api.dependencies import Installed, ModelName, RevisionNumber, TaskName
from api.documentation import binary, problems
from api.downloads import Content, content_response, unchanged_response
from api.errors import UnknownTaskError, UnusableRangeError
from api.pinning import base_ref, pin_revision
from catalog.errors import NoSuchRowError
from store.errors import CorruptBlobError

router = APIRouter(prefix="/models/{model}/tasks/{task}", tags=["tasks"])
MEDIA_TYPE = "application/octet-stream"


@router.get(
    "/checkpoint",
    summary="Download an expert",
    response_class=Response,
    responses={
        **problems(NoSuchRowError, UnknownTaskError, UnusableRangeError, CorruptBlobError),
        200: binary(MEDIA_TYPE, "The whole file; ETag is the expert's digest."),
        206: binary(MEDIA_TYPE, "The part that Range asked for."),
        304: {"description": "The client has this very expert already (If-None-Match)."},
    },
)
def get_checkpoint(
    model: ModelName, task: TaskName, request: Request, services: Installed, revision: RevisionNumber = None
) -> Response:
    """The task's expert as safetensors, with the base's own names, shapes and dtypes.

    Any code that loads the base loads it.
    It is rebuilt from the base, the unified delta and the task's trigger while it is sent. A broken download
    goes on with `Range` and `If-Range`. HEAD answers the same headers without the file.
    """
    pinned = pin_revision(services, model, revision)
    manifest = pinned.require_task(task)
    headers = {"Condu-Revision": str(pinned.number), "Condu-Base": pinned.base.digest}
    unchanged = unchanged_response(request, manifest.expert_digest(task), headers)
    if unchanged is not None:
        return unchanged
    base = base_ref(pinned.base)
    with services.pool.lease_base(base) as weights:
        expert = services.store.export(weights, manifest, task)

    def read(start: int, stop: int) -> Generator[memoryview]:
        # Leased anew: the answer is sent after this function has returned.
        with services.pool.lease_base(base) as leased:
            yield from services.store.export(leased, manifest, task).read(start, stop)

    content = Content(
        size_bytes=expert.size_bytes,
        digest=expert.etag,
        read=read,
        filename=f"{model}-{task}-r{pinned.number}.safetensors",
        headers=headers,
    )
    return content_response(request, content)


router.add_api_route(
    "/checkpoint", get_checkpoint, methods=["HEAD"], response_class=Response, include_in_schema=False
)
