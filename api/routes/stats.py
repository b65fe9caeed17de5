"""Stats: the whole installation in figures."""

import shutil
from dataclasses import asdict
from importlib.metadata import version

from fastapi import APIRouter

from api.dependencies import Installed
from api.documentation import problems
from api.schemas.installation import StatsAnswer, WorkerAnswer
from catalog.bases import list_bases
from catalog.blobs import blob_bytes
from catalog.datasets import list_datasets
from catalog.jobs import count_jobs
from catalog.models import list_models
from catalog.revisions import list_revisions
from catalog.tasks import head_tasks
from catalog.workers import WorkerRecord, list_workers

router = APIRouter(prefix="/stats", tags=["installation"])


@router.get("", summary="Count what is here", responses=problems())
def get_stats(services: Installed) -> StatsAnswer:
    """Names, jobs, workers, bytes on disk and in memory."""
    with services.catalog.snapshot() as session:
        models = list_models(session)
        revisions = [revision for model in models for revision in list_revisions(session, model.name)]
        sizes = [blob.size_bytes for blob in services.store.blobs.list()]
        return StatsAnswer(
            version=version("condu"),
            bases=len(list_bases(session)),
            models=len(models),
            tasks=sum(len(head_tasks(session, model.name)) for model in models),
            revisions=sum(revision.expired_at is None for revision in revisions),
            datasets=sum(dataset.released_at is None for dataset in list_datasets(session)),
            jobs=count_jobs(session),
            workers=[worker_answer(worker) for worker in list_workers(session)],
            blobs=len(sizes),
            blob_bytes=sum(sizes),
            blob_bytes_by_kind=blob_bytes(session),
            disk_free_bytes=shutil.disk_usage(services.uploads.folder).free,
            expert_cache=asdict(services.pool.stats()),
            class_weight_cache=asdict(services.predictor.class_weights.stats()),
        )


def worker_answer(record: WorkerRecord) -> WorkerAnswer:
    """The record as the api shows it."""
    return WorkerAnswer(
        worker=record.worker_id,
        host=record.host,
        pid=record.pid,
        device=record.device,
        is_alive=record.is_alive,
    )
