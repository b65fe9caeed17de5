"""Tasks: submit for training, import, list, show, remove."""

from pathlib import Path
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response

from api.dependencies import Installed, ModelName, Services, TaskName, room_of
from api.documentation import FETCH_PROBLEMS, binary, problems
from api.refusals import (
    InvalidRequestError,
    StorageFullError,
    UnsupportedBodyError,
    UploadRefusedError,
    UploadTooLargeError,
)
from api.removal import remove_task
from api.schemas.fetching import FetchCheckpointBody
from api.schemas.relations import TaskPage
from api.schemas.tasks import JobRef, JobTicket, SubmitTaskBody, TaskList, TaskRemovedAnswer
from api.task_answers import list_task_answers
from api.task_relations import task_page
from api.uploads import received_upload
from catalog.bases import find_base
from catalog.blobs import NewBlob, record_blobs
from catalog.datasets import require_dataset
from catalog.errors import (
    AlreadyExistsError,
    DatasetGoneError,
    InvalidNameError,
    NoSuchRowError,
    StaleHeadError,
    StillInUseError,
)
from catalog.jobs import JobRecord, submit_job
from catalog.models import find_model
from catalog.tasks import check_task_free
from serving.errors import UnknownTaskError
from serving.pinning import base_manifest
from store.errors import BlobsUnavailableError, CorruptBlobError, IncompatibleTensorsError, InvalidUploadError
from vlm.errors import InvalidLabelsError, InvalidTemplatesError
from vlm.prompts import DEFAULT_TEMPLATES, validate_labels, validate_templates

router = APIRouter(prefix="/models/{model}/tasks", tags=["tasks"])

SUBMIT_PROBLEMS = (
    NoSuchRowError,
    InvalidNameError,
    AlreadyExistsError,
    StillInUseError,
    DatasetGoneError,
    InvalidTemplatesError,
)


@router.post(
    "",
    summary="Learn a task by training",
    status_code=202,
    response_description="The job was accepted; its address is in Location.",
    responses=problems(*SUBMIT_PROBLEMS),
)
def post_task(model: ModelName, body: SubmitTaskBody, response: Response, services: Installed) -> JobTicket:
    """Fine-tune the base on a data set, in a job, and fold what was learned into the model."""
    request = {
        "templates": list(validate_templates(body.templates)),
        "training": body.training.model_dump(mode="json"),
    }
    with services.catalog.transaction() as session:
        job = submit_job(
            session,
            services.queue,
            kind="train",
            model=model,
            task=body.name,
            request=request,
            dataset=body.dataset,
        )
    return _accepted(job, response)


@router.put(
    "/{task}/checkpoint",
    summary="Learn a task by importing a fine-tuned checkpoint",
    status_code=202,
    response_description="The job was accepted; its address is in Location.",
    responses=problems(
        *SUBMIT_PROBLEMS,
        InvalidLabelsError,
        InvalidUploadError,
        IncompatibleTensorsError,
        UploadTooLargeError,
        UploadRefusedError,
        UnsupportedBodyError,
        StorageFullError,
        BlobsUnavailableError,
    ),
    openapi_extra={
        "requestBody": {**binary("application/octet-stream", "A safetensors file."), "required": True}
    },
)
async def put_checkpoint(
    *,
    model: ModelName,
    task: TaskName,
    request: Request,
    response: Response,
    services: Installed,
    classes: Annotated[
        list[str] | None,
        Query(alias="class", description="A class of the task; repeated.", examples=[["cat", "dog"]]),
    ] = None,
    templates: Annotated[
        list[str] | None,
        Query(
            alias="template", description="A prompt with one {}; repeated.", examples=[["a photo of a {}."]]
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        Query(description="A data set for prototypes and accuracy; without one, prototypes come from text."),
    ] = None,
) -> JobTicket:
    """Fold the safetensors file that is the body, fine-tuned from the model's base, into the model, in a job.

    Names, shapes and dtypes of its tensors are held against the base's before the job is accepted; their
    values (NaN, or no change at all) by the job.
    """
    wanted = {
        "classes": _classes(classes),
        "templates": list(validate_templates(templates or DEFAULT_TEMPLATES)),
    }
    base = await to_thread.run_sync(lambda: _check_import(services, model=model, task=task, dataset=dataset))
    async with received_upload(request, services.uploads) as upload:
        job = await to_thread.run_sync(
            lambda: _submit_import(
                services, base, upload, model=model, task=task, request=wanted, dataset=dataset
            )
        )
    return _accepted(job, response)


@router.post(
    "/{task}/checkpoint",
    summary="Learn a task by fetching a fine-tuned checkpoint",
    status_code=202,
    response_description="The job was accepted; its address is in Location.",
    responses=problems(
        *SUBMIT_PROBLEMS, InvalidLabelsError, InvalidUploadError, IncompatibleTensorsError, *FETCH_PROBLEMS
    ),
)
def post_checkpoint(
    *, model: ModelName, task: TaskName, body: FetchCheckpointBody, response: Response, services: Installed
) -> JobTicket:
    """Let the service fetch a fine-tuned checkpoint from a source that it allows, and fold it in, in a job.

    The answer comes when the file is here and fits the base, as with an upload.
    """
    wanted = {
        "classes": _classes(body.classes),
        "templates": list(validate_templates(body.templates or DEFAULT_TEMPLATES)),
    }
    base = _check_import(services, model=model, task=task, dataset=body.dataset)
    with services.fetcher.fetched(body.url, room_of(services), body.sha256) as checkpoint:
        job = _submit_import(
            services.noting_source(body.url),
            base,
            checkpoint,
            model=model,
            task=task,
            request=wanted,
            dataset=body.dataset,
        )
    return _accepted(job, response)


@router.get("", summary="List a model's tasks", responses=problems(NoSuchRowError))
def get_tasks(model: ModelName, services: Installed) -> TaskList:
    """The tasks of the head, in the order they were learned."""
    return list_task_answers(services, model)


@router.get(
    "/{task}", summary="Show a task", responses=problems(NoSuchRowError, UnknownTaskError, CorruptBlobError)
)
def get_task(model: ModelName, task: TaskName, services: Installed) -> TaskPage:
    """One task as the head has it: accuracy at its own step and now, fidelity, overlap, routing."""
    return task_page(services, model, task)


@router.delete(
    "/{task}", summary="Remove a task", responses=problems(NoSuchRowError, UnknownTaskError, StaleHeadError)
)
def delete_task(model: ModelName, task: TaskName, services: Installed) -> TaskRemovedAnswer:
    """Serve the task no more, from a new revision on.

    Its imprint on the unified delta and on the other tasks' masks remains. Only rolling back to the revision
    before the task, and learning again what came after it, takes that away.
    """
    removed = remove_task(services, model, task)
    return TaskRemovedAnswer(
        model=model,
        task=task,
        revision=removed.revision,
        tasks=list(removed.tasks),
        detail=(
            f"task {task!r} is no longer served; its imprint on the unified delta and on the other masks "
            "remains until the head is rolled back to a revision before it and what came after is learned "
            "again"
        ),
    )


def _accepted(job: JobRecord, response: Response) -> JobTicket:
    response.headers["Location"] = f"/v1/jobs/{job.job_id}"
    return JobTicket(job=JobRef(id=job.job_id, state=job.state))


def _classes(given: list[str] | None) -> list[str]:
    if not given:
        raise InvalidRequestError("name the task's classes, in the order you like: ?class=cat&class=dog")
    classes = validate_labels(given)
    if len(classes) != len(given):
        raise InvalidRequestError("a class is named twice; name each once")
    return list(classes)


def _check_import(services: Services, *, model: str, task: str, dataset: str | None) -> str:
    """The base that the checkpoint must fit; whatever can be is refused before it is received for nothing."""
    with services.catalog.snapshot() as session:
        check_task_free(session, model, task)
        if dataset is not None:
            require_dataset(session, dataset)
        record = find_model(session, model)
        return record.adapter or find_base(session, record.base).digest


def _submit_import(
    services: Services,
    base: str,
    upload: Path,
    *,
    model: str,
    task: str,
    request: dict[str, list[str]],
    dataset: str | None,
) -> JobRecord:
    services.store.check_checkpoint(base_manifest(services.store, base).space, upload)
    blob = services.store.blobs.put_file(upload)
    with services.catalog.transaction() as session:
        record_blobs(session, [NewBlob(blob.digest, blob.size_bytes, "checkpoint")])
        return submit_job(
            session,
            services.queue,
            kind="import",
            model=model,
            task=task,
            request=request,
            dataset=dataset,
            checkpoint=blob.digest,
        )
