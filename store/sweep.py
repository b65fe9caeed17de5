"""Deletes blobs that nothing live names."""

import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from store.blobs import Blobs, StoredBlob
from store.checkpoints import CheckpointStore
from store.errors import NotFoundError
from store.manifest import BaseManifest

UNFINISHED_S = 3600.0
"""A write that was not touched for so long is given up, however short the grace period."""
_BATCH_BLOBS = 100
# Of the lease that a permit gives; what comes after is left to the next sweep.
_BATCH_S = 30.0


@dataclass(frozen=True)
class Roots:
    """What must stay: manifests of revisions and of bases, and blobs that name no other."""

    manifests: Collection[str]
    bases: Collection[str] = ()
    others: Collection[str] = ()


@dataclass(frozen=True)
class SweepReport:
    """What a sweep removed, or would remove.

    Attributes:
        removed: Digests of the blobs removed.
        bytes_freed: Their bytes, and those of writes that never finished.
        bytes_kept: Bytes of all blobs that stay.
        too_young: Unnamed blobs that stay because they were written within the grace period.
        is_dry_run: Nothing was deleted; the figures say what would be.
    """

    removed: tuple[str, ...]
    bytes_freed: int
    bytes_kept: int
    too_young: int
    is_dry_run: bool


@dataclass(frozen=True)
class SweepStep:
    """How far a sweep is; the last step has the report."""

    done_bytes: int
    total_bytes: int
    report: SweepReport | None = None


class SweepPermit(ABC):
    """Who says whether blobs that seem to be unnamed may go, where others name blobs meanwhile."""

    @abstractmethod
    def doom(self, blobs: Sequence[StoredBlob]) -> Collection[str]:
        """Those of the blobs that nothing names, and that nobody will name from now on.

        Whoever tries is told to write the blob again; what is named meanwhile is left out.
        """

    @abstractmethod
    def confirm(self, digests: Collection[str]) -> None:
        """Hears that the sweep will not touch the doomed blobs any more."""


class _AlwaysPermitted(SweepPermit):
    """For a store that nobody else writes to."""

    def doom(self, blobs: Sequence[StoredBlob]) -> Collection[str]:
        return {blob.digest for blob in blobs}

    def confirm(self, digests: Collection[str]) -> None:
        pass


def sweep(store: CheckpointStore, roots: Roots, *, grace_s: float, delete: bool) -> SweepReport:
    """Remove every blob that the roots do not reach and that is older than the grace period.

    A blob written for a revision that is not published yet is unnamed too: the grace period protects it, and
    a writer who writes the same bytes again makes them young again. A second sweep finds nothing to do.
    """
    live = live_blobs(store.blobs, roots)
    *_, last = sweep_steps(store.blobs, live, grace_s=grace_s, delete=delete, permit=_AlwaysPermitted())
    assert last.report is not None  # noqa: S101 - the last step's
    return last.report


def sweep_steps(
    blobs: Blobs, live: Collection[str], *, grace_s: float, delete: bool, permit: SweepPermit
) -> Iterator[SweepStep]:
    """The same a batch at a time, with a permit for each."""
    found = list(blobs.list())
    total = sum(blob.size_bytes for blob in found)
    unnamed = [blob for blob in found if blob.digest not in live]
    going = [blob for blob in unnamed if blob.age_s >= grace_s]
    yield SweepStep(total - sum(blob.size_bytes for blob in going), total)
    removed: dict[str, int] = {}
    for start in range(0, len(going), _BATCH_BLOBS):
        batch = going[start : start + _BATCH_BLOBS]
        if delete:
            removed |= _remove(blobs, batch, grace_s=grace_s, permit=permit)
        else:
            removed |= {blob.digest: blob.size_bytes for blob in batch}
        rest = sum(blob.size_bytes for blob in going[start + _BATCH_BLOBS :])
        yield SweepStep(total - rest, total)
    freed = sum(removed.values())
    unfinished = blobs.discard_unfinished(older_than_s=max(grace_s, UNFINISHED_S), delete=delete)
    report = SweepReport(
        tuple(removed),
        bytes_freed=freed + unfinished,
        bytes_kept=sum(blob.size_bytes for blob in found if blob.digest not in removed),
        too_young=len(unnamed) - len(going),
        is_dry_run=not delete,
    )
    yield SweepStep(total, total, report)


def _remove(
    blobs: Blobs, batch: Sequence[StoredBlob], *, grace_s: float, permit: SweepPermit
) -> dict[str, int]:
    """The blobs that are gone now, with their sizes."""
    given_up_at = time.monotonic() + _BATCH_S
    doomed = permit.doom(batch)
    removed: dict[str, int] = {}
    for blob in batch:
        # One that was held up for long may not delete any more: others take its permit for void.
        if blob.digest not in doomed or time.monotonic() >= given_up_at:
            continue
        size = blobs.delete(blob.digest, unless_younger_than_s=grace_s)
        if size or not blob.size_bytes:
            removed[blob.digest] = size
    permit.confirm(doomed)
    return removed


def live_blobs(blobs: Blobs, roots: Roots) -> frozenset[str]:
    """All blobs that the roots reach; a root that is missing reaches only itself."""
    live = {*roots.manifests, *roots.bases, *roots.others}
    bases = set(roots.bases)
    store = CheckpointStore(blobs)
    for digest in roots.manifests:
        try:
            manifest = store.manifest(digest)
        except NotFoundError:
            continue
        live |= manifest.named_blobs()
        bases.add(manifest.base)
    return frozenset(live | _reached(blobs, bases))


def _reached(blobs: Blobs, bases: Iterable[str]) -> set[str]:
    """What the bases need: their weights, and the bases that they extend with theirs."""
    reached, waiting = set(), set(bases)
    while waiting:
        digest = waiting.pop()
        reached.add(digest)
        try:
            manifest = BaseManifest.from_json(blobs.read_checked(digest))
        except NotFoundError:
            continue
        reached.add(manifest.weights)
        if manifest.extends is not None:
            waiting.add(manifest.extends.base)
    return reached
