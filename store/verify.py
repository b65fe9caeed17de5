"""Verifies a store: every byte against its digest, every revision against the laws of its fusion."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from store.bases import load_base
from store.bits import count_bits, unpack_bits
from store.blobs import Blobs
from store.checkpoints import CheckpointStore
from store.errors import CorruptBlobError, NotFoundError, StoreError
from store.experts import open_mask, open_unified
from store.fusion import TensorWeights, weighted_l1
from store.manifest import BaseManifest, Manifest, TaskEntry
from store.parallel import ordered_map
from store.parameters import CHUNK_ELEMENTS, ParameterSpace

_NORM_TOLERANCE = 1e-9
"""Relative; N and lambda are float64 and their product re-forms N up to rounding."""


@dataclass(frozen=True)
class VerifyStep:
    """Progress of a verification: bytes done of all, and what was just found wrong, if anything."""

    done_bytes: int
    total_bytes: int
    problem: str | None = None


def verify(
    store: CheckpointStore, *, manifests: Iterable[str], bases: Iterable[str] = (), others: Iterable[str] = ()
) -> Iterator[VerifyStep]:
    """Check what the given revisions, bases and other blobs need; yield progress and problems.

    Every blob is read and hashed. Of every revision: lambda ||M u|| = N, the recorded bit counts, and
    against its parent, while that is still there, that no mask bit went from 0 to 1 and that no N changed.
    """
    digests, problems = _named(store, manifests=manifests, bases=bases, others=others)
    total = sum(store.blobs.size_bytes(digest) for digest in digests if store.blobs.contains(digest))
    done = 0
    for problem in problems:
        yield VerifyStep(done, total, problem)
    damaged = set()
    for digest in sorted(digests):
        damage, size = _check_bytes(store.blobs, digest)
        if damage:
            damaged.add(digest)
        done += size
        yield VerifyStep(done, total, damage)
    for digest in sorted(set(manifests)):
        if digest not in damaged:
            for problem in _check_revision(store, digest, damaged):
                yield VerifyStep(done, total, problem)


def _named(
    store: CheckpointStore, *, manifests: Iterable[str], bases: Iterable[str], others: Iterable[str]
) -> tuple[set[str], list[str]]:
    digests, problems = set(others), []
    base_digests = set(bases)
    for digest in manifests:
        digests.add(digest)
        try:
            manifest = store.manifest(digest)
        except StoreError as error:
            problems.append(f"revision {digest}: {error}")
            continue
        digests |= manifest.named_blobs()
        base_digests.add(manifest.base)
    while base_digests:
        digest = base_digests.pop()
        digests.add(digest)
        try:
            base = BaseManifest.from_json(store.blobs.read_checked(digest))
        except StoreError as error:
            problems.append(f"base {digest}: {error}")
            continue
        digests.add(base.weights)
        if base.extends is not None and base.extends.base not in digests:
            base_digests.add(base.extends.base)
    return digests, problems


def _check_bytes(blobs: Blobs, digest: str) -> tuple[str | None, int]:
    sha256 = hashlib.sha256()
    size = 0
    try:
        for piece in blobs.pieces(digest):
            sha256.update(piece)
            size += len(piece)
    except StoreError as error:
        return str(error), size
    if sha256.hexdigest() != digest:
        return str(CorruptBlobError(f"blob {digest}", expected=digest, found=sha256.hexdigest())), size
    return None, size


def _check_revision(store: CheckpointStore, digest: str, damaged: set[str]) -> Iterator[str]:
    try:
        manifest = store.manifest(digest)
        if manifest.named_blobs() & damaged or not manifest.unified:
            return  # its damaged blobs are reported already; what they decode to says nothing
        base = load_base(store.blobs, manifest.base)
        yield from check_laws(store.blobs, base.space, manifest)
        yield from _check_nested(store, base.space, manifest)
    except StoreError as error:
        yield f"revision {digest}: {error}"


def check_laws(blobs: Blobs, space: ParameterSpace, manifest: Manifest) -> Iterator[str]:
    """What a revision breaks of the laws of its fusion, each in a sentence.

    Of each task, the set bits against the manifest and lambda ||M u|| = N; of the unified delta, its dtype.
    It is decoded once, whatever the number of tasks, a chunk a thread at a time.

    Raises:
        CorruptBlobError: An artefact is damaged, or of another layout.
        UnsupportedFormatError: Its codec or dtype is unknown.
    """
    if manifest.unified is None:
        return
    unified = open_unified(blobs, manifest.unified, space)
    if unified.dtype != manifest.options.unified_dtype:
        yield f"the unified delta is in {unified.dtype}, its manifest says {manifest.options.unified_dtype}"
    masks = [open_mask(blobs, task.mask, space) for task in manifest.tasks]
    weights = TensorWeights.of(manifest.options.rescaler_norm, starts=space.starts, sizes=space.sizes)

    def measure(start: int) -> list[tuple[int, float]]:
        index = start // CHUNK_ELEMENTS
        values = unified.chunk(index)
        segments = weights.segments(start, len(values))
        sums = []
        for mask in masks:
            bits = mask.chunk(index)
            owned = np.where(unpack_bits(bits, len(values)), values, np.float32(0))
            sums.append((count_bits(bits), weighted_l1(owned, segments)))
        return sums

    num_bits, norms = [0] * len(masks), [0.0] * len(masks)
    for sums in ordered_map(measure, range(0, space.flat_size, CHUNK_ELEMENTS)):
        num_bits = [total + bits for total, (bits, _) in zip(num_bits, sums, strict=True)]
        norms = [total + norm for total, (_, norm) in zip(norms, sums, strict=True)]
    for task, bits, norm in zip(manifest.tasks, num_bits, norms, strict=True):
        yield from _broken_laws(task, num_bits=bits, norm=norm)


def _broken_laws(task: TaskEntry, *, num_bits: int, norm: float) -> Iterator[str]:
    if num_bits != task.bits_set:
        yield f"task {task.name!r}: its mask has {num_bits} bits set, the manifest says {task.bits_set}"
    served = task.rescaler * norm
    # Not the other way round: a comparison with NaN is false.
    if task.bits_set and not abs(served - task.l1_norm) <= _NORM_TOLERANCE * task.l1_norm:
        yield f"task {task.name!r}: the norm of its served delta is {served!r}, its N is {task.l1_norm!r}"


def _check_nested(store: CheckpointStore, space: ParameterSpace, manifest: Manifest) -> Iterator[str]:
    try:
        parent = store.manifest(manifest.parent) if manifest.parent else None
    except NotFoundError:
        return  # swept
    for old in parent.tasks if parent else ():
        new = next((task for task in manifest.tasks if task.name == old.name), None)
        if new is None or not store.blobs.contains(old.mask):
            continue
        if new.l1_norm != old.l1_norm:
            yield f"task {old.name!r}: N changed from {old.l1_norm!r} to {new.l1_norm!r}; it never may"
        before, after = (open_mask(store.blobs, task.mask, space) for task in (old, new))
        appeared = sum(count_bits(after.chunk(i) & ~before.chunk(i)) for i in range(after.num_chunks))
        if appeared:
            yield f"task {old.name!r}: {appeared} mask bits went from 0 to 1 since the parent; they never may"
