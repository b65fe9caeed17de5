"""The worker process: builds what jobs work with, takes jobs until it is asked to stop."""

import logging
import signal
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from catalog import Catalog, Settings, upgrade
from catalog.dbos_queue import DbosRunner
from catalog.job_queue import JobContext, JobFailedError
from catalog.jobs import find_job
from store.blobs import open_blobs
from store.checkpoints import CheckpointStore
from vlm.experts import ExpertPool, resolve_device
from worker.jobs.import_checkpoint import import_checkpoint
from worker.jobs.train import train
from worker.training.team import check_devices
from worker.workbench import Workbench

_log = logging.getLogger(__name__)

JOBS: dict[str, Callable[[JobContext, Workbench], dict[str, Any]]] = {
    "train": train,
    "import": import_checkpoint,
}


def run(settings: Settings) -> None:
    """Work until SIGTERM or Ctrl-C; a job in hand goes back to the queue, and on from where it was."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    upgrade(settings.catalog_url)
    catalog = Catalog(settings)
    try:
        work(settings, catalog, stopping)
    finally:
        catalog.close()


def work(settings: Settings, catalog: Catalog, stopping: threading.Event) -> None:
    """Take jobs until the event is set."""
    bench = build_workbench(settings)
    catalog = catalog.beside(bench.store.blobs.contains)
    bench.discard_leftovers(catalog)
    runner = DbosRunner(settings, catalog, device=str(bench.pool.device))
    runner.start(partial(run_job, bench))
    _log.info("worker %s takes jobs on %s", runner.worker_id, bench.pool.device)
    stopping.wait()
    runner.stop()
    _log.info("worker %s has stopped", runner.worker_id)


def build_workbench(settings: Settings) -> Workbench:
    """The store, and the models in memory on the device that the settings name."""
    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)
    store = CheckpointStore(open_blobs(settings.blob_place))
    check_devices(settings.training_processes, str(resolve_device(settings.device)))
    pool = ExpertPool(store, device=settings.device, max_bytes=settings.expert_cache_bytes)
    return Workbench(settings, store, pool)


def run_job(bench: Workbench, context: JobContext) -> dict[str, Any]:
    """The result of whatever kind of job it is."""
    with context.catalog.snapshot() as session:
        kind = find_job(session, context.job_id).kind
    if kind not in JOBS:
        raise JobFailedError(
            "This worker does not know the job",
            detail=f"Its kind is {kind!r}; this worker knows {', '.join(sorted(JOBS))}.",
            remedy="Upgrade the worker to the version of the api, and submit the job again.",
        )
    return JOBS[kind](context, bench)
