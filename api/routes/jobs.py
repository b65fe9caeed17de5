"""Jobs: list, show, cancel, follow."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from api.dependencies import Installed, JobId, Services, StateFilter
from api.documentation import problems
from api.schemas.jobs import JobAnswer, JobList
from catalog.errors import NoSuchRowError
from catalog.job_events import EventRecord, list_events
from catalog.jobs import JobRecord, cancel_job, find_job, list_jobs

router = APIRouter(prefix="/jobs", tags=["jobs"])
POLL_S = 0.25
"""Seconds between two looks for new events; training steps are not faster."""
RETRY_MS = 1000

LastEventId = Annotated[
    str | None,
    Header(
        description="Id of the last event that was received; the stream goes on after it.", examples=["17"]
    ),
]


def known_job(job_id: JobId, services: Installed) -> JobRecord:
    """The job, looked up before a stream begins, so that an unknown one is a plain 404."""
    with services.catalog.snapshot() as session:
        job = find_job(session, job_id)
    if not services.caller.may_touch(job.model):
        raise NoSuchRowError(f"there is no job {job_id!r} of a model that the key may touch")
    return job


@router.get("", summary="List jobs", responses=problems())
def get_jobs(
    services: Installed,
    model: Annotated[str | None, Query(description="Only jobs of this model.", examples=["animals"])] = None,
    state: StateFilter = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="At most so many.")] = 100,
) -> JobList:
    """Jobs of all models and states, or of those named; the newest first."""
    if model is not None:
        services.caller.require_model(model)
    only = None if services.caller.key is None else services.caller.key.models
    with services.catalog.snapshot() as session:
        records = list_jobs(session, model=model, state=state, limit=limit, only=only)
    return JobList(jobs=[job_answer(record) for record in records])


@router.get("/{job_id}", summary="Show a job", responses=problems(NoSuchRowError))
def get_job(job: Annotated[JobRecord, Depends(known_job)]) -> JobAnswer:
    """One job: its state, progress, result or error."""
    return job_answer(job)


@router.post("/{job_id}/cancel", summary="Cancel a job", responses=problems(NoSuchRowError))
def post_cancel(job: Annotated[JobRecord, Depends(known_job)], services: Installed) -> JobAnswer:
    """Ask a job to stop: a queued one does at once, a running one soon; a finished one is left alone."""
    with services.catalog.transaction() as session:
        return job_answer(cancel_job(session, job.job_id))


@router.get(
    "/{job_id}/events",
    summary="Follow a job",
    response_class=EventSourceResponse,
    response_description="Server-sent events `log`, `progress` and `state`, until the job has ended.",
    responses=problems(NoSuchRowError),
)
async def get_events(
    job: Annotated[JobRecord, Depends(known_job)], services: Installed, last_event_id: LastEventId = None
) -> AsyncIterator[ServerSentEvent]:
    """Everything the job says, as it says it; with Last-Event-ID a broken stream goes on where it stopped."""
    after_seq = (
        int(last_event_id) if last_event_id and last_event_id.isascii() and last_event_id.isdigit() else 0
    )
    yield ServerSentEvent(comment="following", retry=RETRY_MS)
    while not services.stopping.is_set():
        events, has_ended = await to_thread.run_sync(_news, services, job.job_id, after_seq)
        for event in events:
            after_seq = event.seq
            yield ServerSentEvent(data=event.body, event=event.kind, id=str(event.seq))
        if has_ended:
            return
        if not events:
            await _pause(services)


def job_answer(record: JobRecord) -> JobAnswer:
    """The record as the api shows it."""
    return JobAnswer(
        id=record.job_id,
        kind=record.kind,
        model=record.model,
        task=record.task,
        state=record.state,
        attempt=record.attempt,
        cancel_requested=record.cancel_requested,
        progress=record.progress,
        result=record.result,
        error=record.error,
        created_at=record.created_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
        key=record.key_id,
        request_id=record.request_id,
    )


def _news(services: Services, job_id: str, after_seq: int) -> tuple[list[EventRecord], bool]:
    """New events and whether the job had ended, read in one snapshot, so that no last event is missed."""
    with services.catalog.snapshot() as session:
        return list_events(session, job_id, after_seq=after_seq), find_job(session, job_id).is_finished


async def _pause(services: Services) -> None:
    try:
        async with asyncio.timeout(POLL_S):
            await services.stopping.wait()
    except TimeoutError:
        return
