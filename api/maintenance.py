"""Verifies and sweeps the store, a line of progress at a time."""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from typing import Any
from uuid import uuid4

import structlog
from pydantic import BaseModel

from api.dependencies import Services
from api.problems import problem_body
from api.schemas.installation import ProgressLine, SweepLine, SweepSummary, VerifyLine, VerifyReport
from catalog.blobs import forget_blobs
from catalog.doomed import doom_blobs, forget_doomed, note_removed
from catalog.errors import StillInUseError
from catalog.jobs import count_jobs
from catalog.models import list_models
from catalog.retention import LiveRoots, expire_datasets, expire_revisions, live_roots, longest_running_s
from catalog.revisions import RevisionRecord, list_revisions
from store.blobs import StoredBlob
from store.sweep import Roots, SweepPermit, live_blobs, sweep_steps
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
    """Progress, and at the end the report on what nothing needs any more; removed if `delete`."""
    live, expired, running_s = let_go(services, delete=delete, keep_revisions=keep_revisions, grace_s=grace_s)
    reached = set(live_blobs(services.store.blobs, _as_roots(live)))
    permit = CatalogPermit(services, live, reached, keep_revisions=keep_revisions, grace_s=grace_s)
    effective_s = max(grace_s, running_s)
    steps = sweep_steps(services.store.blobs, reached, grace_s=effective_s, delete=delete, permit=permit)
    for step in steps:
        yield SweepLine(progress=ProgressLine(done_bytes=step.done_bytes, total_bytes=step.total_bytes))
        if step.report is None:
            continue
        if delete:
            services.catalog.compact()
        yield SweepLine(
            report=SweepSummary(
                deleted=delete,
                num_removed=len(step.report.removed),
                bytes_freed=step.report.bytes_freed,
                bytes_kept=step.report.bytes_kept,
                too_young=step.report.too_young,
                digests=sorted(step.report.removed),
                expired_revisions=[f"{revision.model}@{revision.number}" for revision in expired],
            )
        )


class CatalogPermit(SweepPermit):
    """Blobs may go once they are doomed in a transaction that comes after all that could have named them.

    Args:
        services: The catalog and the store.
        live: What was known to be needed when the sweep began.
        reached: All blobs that this reaches; more are added as they are published.
        keep_revisions: As in the beginning.
        grace_s: As in the beginning.
    """

    def __init__(
        self, services: Services, live: LiveRoots, reached: set[str], *, keep_revisions: int, grace_s: float
    ) -> None:
        self._services = services
        self._known = live
        self._reached = reached
        self._roots = partial(
            live_roots,
            keep_revisions=keep_revisions,
            upload_ttl_s=services.settings.upload_ttl_s,
            grace_s=grace_s,
        )
        self._sweeper = uuid4().hex

    def doom(self, blobs: Sequence[StoredBlob]) -> Collection[str]:
        while True:
            with self._services.catalog.transaction() as session:
                now = self._roots(session)
                fresh = _beyond(now, self._known)
                if not any((fresh.manifests, fresh.bases, fresh.others)):
                    running_s = longest_running_s(session)
                    old = [blob.digest for blob in blobs if blob.age_s >= running_s]
                    doomed = doom_blobs(session, set(old) - self._reached, sweeper=self._sweeper)
                    forget_blobs(session, doomed)
                    return doomed
            # Something was published since: what it names is read without holding others up, and then again.
            self._reached |= live_blobs(self._services.store.blobs, _as_roots(fresh))
            self._known = now

    def confirm(self, digests: Collection[str]) -> None:
        with self._services.catalog.transaction() as session:
            note_removed(session, digests, sweeper=self._sweeper)


def _as_roots(live: LiveRoots) -> Roots:
    return Roots(manifests=live.manifests, bases=live.bases, others=live.others)


def _beyond(now: LiveRoots, known: LiveRoots) -> LiveRoots:
    return LiveRoots(now.manifests - known.manifests, now.bases - known.bases, now.others - known.others)


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


def let_go(
    services: Services, *, delete: bool, keep_revisions: int, grace_s: float
) -> tuple[LiveRoots, list[RevisionRecord], float]:
    """What must stay, the revisions that are expired for it, and for how long a job has been running.

    A dry run expires them and takes it back.
    """
    found: tuple[LiveRoots, list[RevisionRecord], float] | None = None
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
            found = roots, expired, longest_running_s(session)
            forget_doomed(session)
            if not delete:
                raise _DryRun  # noqa: TRY301 - raised to make the transaction roll back
    except _DryRun:
        pass
    assert found is not None  # noqa: S101 - set before anything raises _DryRun
    return found
