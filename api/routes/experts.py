"""Experts as files: a task's fine-tuned model, rebuilt while it is downloaded."""

from collections.abc import Generator
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.dependencies import Installed, ModelName, RevisionNumber, TaskName
from api.documentation import binary, problems
from api.downloads import Content, content_response, unchanged_response
from api.expert_files import Form, Wanted, opened_expert
from api.refusals import InvalidRequestError, UnusableRangeError
from catalog.errors import NoSuchRowError
from serving.errors import UnknownTaskError
from store.errors import CorruptBlobError

router = APIRouter(prefix="/models/{model}/tasks/{task}", tags=["tasks"])
MEDIA_TYPE = "application/octet-stream"


@router.get(
    "/checkpoint",
    summary="Download an expert",
    response_class=Response,
    responses={
        **problems(
            NoSuchRowError, UnknownTaskError, UnusableRangeError, CorruptBlobError, InvalidRequestError
        ),
        200: binary(MEDIA_TYPE, "The whole file; ETag is what it is made of."),
        206: binary(MEDIA_TYPE, "The part that Range asked for."),
        304: {"description": "The client has this very expert already (If-None-Match)."},
    },
)
def get_checkpoint(
    *,
    model: ModelName,
    task: TaskName,
    request: Request,
    services: Installed,
    revision: RevisionNumber = None,
    form: Annotated[
        Form,
        Query(
            description="`checkpoint` is a whole model, whatever the tuning; `adapter` is the task's adapter "
            "alone, of a model with `tuning` lora."
        ),
    ] = "checkpoint",
) -> Response:
    """The task's expert as safetensors, with the base's own names, shapes and dtypes.

    Any code that loads the base loads it; of a model that learns adapters, the task's is merged in.
    It is rebuilt from the base, the unified delta and the task's trigger while it is sent. A broken download
    goes on with `Range` and `If-Range`. HEAD answers the same headers without the file.
    """
    pinned = services.heads.pin(model, revision)
    manifest = pinned.require_task(task)
    if form == "adapter" and pinned.ref.adapter is None:
        raise InvalidRequestError(
            f"model {model!r} is tuned in full, so its tasks have no adapters: ask for form=checkpoint"
        )
    wanted = Wanted(pinned.ref, manifest, task, form)
    headers = {"Condu-Revision": str(pinned.number), "Condu-Base": pinned.base.digest}
    unchanged = unchanged_response(request, wanted.etag, headers)
    if unchanged is not None:
        return unchanged
    with opened_expert(services, wanted) as expert:
        size_bytes = expert.size_bytes

    def read(start: int, stop: int) -> Generator[memoryview]:
        # Leased anew: the answer is sent after this function has returned.
        with opened_expert(services, wanted) as file:
            yield from file.read(start, stop)

    suffix = "-adapter" if form == "adapter" else ""
    content = Content(
        size_bytes=size_bytes,
        digest=wanted.etag,
        read=read,
        filename=f"{model}-{task}-r{pinned.number}{suffix}.safetensors",
        headers=headers,
    )
    return content_response(request, content)


router.add_api_route(
    "/checkpoint", get_checkpoint, methods=["HEAD"], response_class=Response, include_in_schema=False
)
