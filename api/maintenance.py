"""Verifies and sweeps the store, a line of progress at a time."""

from collections.abc import Callable, Iterator
from typing import Any

import structlog
from pydantic import BaseModel

from api.dependencies import Services
from api.problems import problem_body
from api.schemas.installation import ProgressLine, SweepLine, SweepSummary, VerifyLine, VerifyReport
from catalog.blobs import forget_blobs
from catalog.errors import StillInUseError
from catalog.jobs import count_jobs
from catalog.models import list_models
from catalog.retention import LiveRoots, expire_datasets, expire_revisions, live_roots
from catalog.revisions import RevisionRecord, list_revisions
from store.sweep import Roots, sweep
from store.verify import verify

log = structlog.stdlib.get_logger("condu.api")


def verify_lines(services: Services) -> Iterator[VerifyLine]:
    """Progress, and at the end the report on every revision, base and upload that the catalog knows."""
    with services.catalog.snapshot() as session:
        roots = live_roots(session)
        manifests = {
            revision.manifest
            for model in list_models(session)
            for revision in list_revisions(session, model.name)
            if revision.expired_at is None
        }
    found: list[str] = []
    done_bytes = 0
    for step in verify(services.store, manifests=manifests, bases=roots.bases, others=roots.others):
        done_bytes = step.done_bytes
        if step.problem is not None:
            found.append(step.problem)
        yield VerifyLine(progress=ProgressLine(done_bytes=step.done_bytes, total_bytes=step.total_bytes))
    yield VerifyLine(report=VerifyReport(ok=not found, verified_bytes=done_bytes, problems=found))


def sweep_lines(
    services: Services, *, delete: bool, keep_revisions: int, grace_s: float
) -> Iterator[SweepLine]:
    """The report on what nothing needs any more; removed if `delete`."""
    total_bytes = sum(blob.size_bytes for blob in services.store.blobs.list())
    yield SweepLine(progress=ProgressLine(done_bytes=0, total_bytes=total_bytes))
    live, expired = _let_go(services, delete=delete, keep_revisions=keep_revisions, grace_s=grace_s)
    roots = Roots(manifests=live.manifests, bases=live.bases, others=live.others)
    report = sweep(services.store, roots, grace_s=grace_s, delete=delete)
    if delete:
        with services.catalog.transaction() as session:
            forget_blobs(session, report.removed)
        services.catalog.compact()
    yield SweepLine(progress=ProgressLine(done_bytes=total_bytes, total_bytes=total_bytes))
    yield SweepLine(
        report=SweepSummary(
            deleted=delete,
            num_removed=len(report.removed),
            bytes_freed=report.bytes_freed,
            bytes_kept=report.bytes_kept,
            too_young=report.too_young,
            digests=sorted(report.removed),
            expired_revisions=[f"{revision.model}@{revision.number}" for revision in expired],
        )
    )


def check_sweep(services: Services, *, delete: bool, grace_s: float) -> None:
    """Nothing, when a sweep with that grace period cannot take a blob away from a job that is still writing.

    Raises:
        StillInUseError: Jobs are not finished, and the grace period that protects their blobs was shortened.
    """
    if not delete or grace_s >= services.settings.sweep_grace_s:
        return
    with services.catalog.snapshot() as session:
        jobs = count_jobs(session)
    unfinished = jobs["queued"] + jobs["running"]
    if unfinished:
        raise StillInUseError(
            f"{unfinished} jobs are not finished, and a grace period of {grace_s:g} s would take blobs from "
            f"them: wait for them, or leave grace_s at {services.settings.sweep_grace_s:g}"
        )


def as_ndjson(lines: Iterator[BaseModel], failed: Callable[[dict[str, Any]], BaseModel]) -> Iterator[bytes]:
    """Each line as JSON; an error on the way becomes the last line, for the status is long sent."""
    try:
        for line in lines:
            yield _encoded(line)
    except Exception as error:
        log.exception("maintenance failed")
        yield _encoded(failed(problem_body(error)))


def _encoded(line: BaseModel) -> bytes:
    return line.model_dump_json(exclude_none=True).encode() + b"\n"


class _DryRun(Exception):  # noqa: N818 - not an error: it undoes a transaction
    pass


def _let_go(
    services: Services, *, delete: bool, keep_revisions: int, grace_s: float
) -> tuple[LiveRoots, list[RevisionRecord]]:
    """What must stay, and the revisions that are expired for it; a dry run expires them and takes it back."""
    found: tuple[LiveRoots, list[RevisionRecord]] | None = None
    try:
        with services.catalog.transaction() as session:
            expired = expire_revisions(session, keep_revisions=keep_revisions)
            expire_datasets(session, upload_ttl_s=services.settings.upload_ttl_s)
            roots = live_roots(
                session,
                keep_revisions=keep_revisions,
                upload_ttl_s=services.settings.upload_ttl_s,
                grace_s=grace_s,
            )
            found = roots, expired
            if not delete:
                raise _DryRun  # noqa: TRY301 - raised to make the transaction roll back
    except _DryRun:
        pass
    assert found is not None  # noqa: S101 - set before anything raises _DryRun
    return found
