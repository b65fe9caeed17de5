"""What a job leaves behind once its revision is published: nothing, unless it says keep."""

import logging

from catalog import Session
from catalog.blobs import forget_blobs
from catalog.datasets import find_dataset, keep_dataset, release_dataset
from catalog.errors import NoSuchRowError
from catalog.uploads import is_upload_free
from store.errors import BlobsUnavailableError
from worker.jobs.assignment import Assignment

_log = logging.getLogger(__name__)


def clean_up(work: Assignment, *, is_kept: bool) -> None:
    """Delete the images and the uploaded checkpoint, or keep them, and remove the scratch files; repeatable.

    A data set that another unfinished job names stays, and so does one that was uploaded anew since this job
    was submitted: somebody is about to use it.
    """
    with work.context.catalog.transaction() as session:
        goners = _released(session, work, is_kept=is_kept)
    deleted = [digest for digest in goners if _is_deleted(work, digest)]
    if deleted:
        with work.context.catalog.transaction() as session:
            forget_blobs(session, deleted)
    work.bench.discard_scratch(work.job.job_id)


def _is_deleted(work: Assignment, digest: str) -> bool:
    try:
        return bool(work.bench.store.blobs.delete(digest, unless_younger_than_s=work.bench.just_written_s))
    except BlobsUnavailableError as error:
        # The revision is published, and the job must not fail any more.
        _log.warning("blob %s is left to the sweeper: %s", digest, error)
        return False


def _released(session: Session, work: Assignment, *, is_kept: bool) -> list[str]:
    job = work.job
    goners = []
    if job.dataset is not None and _is_done_with(session, work, is_kept=is_kept):
        goners.append(job.dataset)
    if job.checkpoint is not None and is_upload_free(session, job.checkpoint, after_job=job.job_id):
        goners.append(job.checkpoint)
    return goners


def _is_done_with(session: Session, work: Assignment, *, is_kept: bool) -> bool:
    digest = work.job.dataset or ""
    try:
        record = find_dataset(session, digest)
        if is_kept:
            keep_dataset(session, digest)
            return False
        if record.created_at > work.job.created_at:
            return False
        return release_dataset(session, digest, after_job=work.job.job_id)
    except NoSuchRowError:  # its user deleted it
        return False
