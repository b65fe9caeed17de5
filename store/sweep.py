"""Deletes blobs that nothing live names."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from store.blobs import Blobs
from store.checkpoints import CheckpointStore
from store.errors import NotFoundError
from store.manifest import BaseManifest


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


def sweep(store: CheckpointStore, roots: Roots, *, grace_s: float, delete: bool) -> SweepReport:
    """Remove every blob that the roots do not reach and that is older than the grace period.

    A blob written for a revision that is not published yet is unnamed too: the grace period protects it, and
    a writer who writes the same bytes again makes them young again. A second sweep finds nothing to do.
    """
    live = live_blobs(store.blobs, roots)
    removed: list[str] = []
    freed = kept = young = 0
    for blob in store.blobs.list():
        if blob.digest in live or blob.age_s < grace_s:
            young += blob.digest not in live
            kept += blob.size_bytes
            continue
        size = store.blobs.delete(blob.digest, unless_younger_than_s=grace_s) if delete else blob.size_bytes
        if size or not blob.size_bytes:
            removed.append(blob.digest)
            freed += size
    freed += store.blobs.discard_unfinished(older_than_s=grace_s, delete=delete)
    return SweepReport(tuple(removed), freed, kept, young, is_dry_run=not delete)


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
