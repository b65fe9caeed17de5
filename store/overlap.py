"""How much of the unified delta two tasks share: their masks held against each other, bit by bit."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from store.blobs import Blobs
from store.experts import open_mask
from store.manifest import BaseManifest, Manifest
from store.parallel import ordered_map

BitCounts = Int64[np.ndarray, "tasks tasks"]


@dataclass(frozen=True)
class MaskOverlap:
    """The tasks of a revision against each other.

    Attributes:
        tasks: Their names, in the revision's order.
        bits_shared: Parameters that the tasks of a row and a column both own; on the diagonal, all that the
            task owns.
    """

    tasks: tuple[str, ...]
    bits_shared: tuple[tuple[int, ...], ...]

    def jaccard(self, task: str, other: str) -> float:
        """Parameters that both own, of those that either owns; 0 where neither owns any."""
        both = self._shared(task, other)
        either = self._shared(task, task) + self._shared(other, other) - both
        return both / either if either else 0.0

    def share(self, task: str, other: str) -> float:
        """Of the parameters that `task` owns, the share that `other` owns too; 0 where it owns none."""
        owned = self._shared(task, task)
        return self._shared(task, other) / owned if owned else 0.0

    def _shared(self, task: str, other: str) -> int:
        return self.bits_shared[self.tasks.index(task)][self.tasks.index(other)]


class MaskOverlaps:
    """The overlaps of revisions, each measured once while it is remembered. Thread-safe.

    A manifest's digest says which masks it has, so that an answer never grows old.

    Args:
        blobs: Where the masks are.
        max_revisions: How many answers are remembered; of a thousand tasks, one takes some 40 MB.
    """

    def __init__(self, blobs: Blobs, *, max_revisions: int = 16) -> None:
        self._blobs = blobs
        self._max_revisions = max_revisions
        self._known: OrderedDict[str, MaskOverlap] = OrderedDict()
        # Held while masks are read: two who ask for one revision at a time read them once.
        self._measuring = threading.Lock()

    def of(self, digest: str) -> MaskOverlap:
        """The overlap of the tasks of the revision whose manifest has that digest.

        Raises:
            NotFoundError: A blob is gone.
            CorruptBlobError: The manifest or a mask is damaged.
        """
        with self._measuring:
            if digest not in self._known:
                manifest = Manifest.from_json(self._blobs.read_checked(digest))
                self._known[digest] = measure_overlap(self._blobs, manifest)
            self._known.move_to_end(digest)
            while len(self._known) > self._max_revisions:
                self._known.popitem(last=False)
            return self._known[digest]


def measure_overlap(blobs: Blobs, manifest: Manifest) -> MaskOverlap:
    """The overlap of a revision's tasks, from their masks alone; exact.

    Each mask is read once, a chunk a thread at a time: memory is a chunk of each mask a thread, whatever the
    size of the model.

    Raises:
        NotFoundError: A blob is gone.
        CorruptBlobError: A mask is damaged, or belongs to another layout.
    """
    names = tuple(task.name for task in manifest.tasks)
    if not names:
        return MaskOverlap((), ())
    space = BaseManifest.from_json(blobs.read_checked(manifest.base)).space
    masks = [open_mask(blobs, task.mask, space) for task in manifest.tasks]

    def count(index: int) -> BitCounts:
        return _bits_shared([mask.chunk(index) for mask in masks])

    total = np.zeros((len(names), len(names)), np.int64)
    for shared in ordered_map(count, range(masks[0].num_chunks)):
        total += shared
    return MaskOverlap(names, tuple(tuple(row) for row in total.tolist()))


def _bits_shared(masks: Sequence[np.ndarray]) -> BitCounts:
    """How many bits each pair of masks has in common; every bit is looked at once a pair."""
    # A chunk is a whole number of tensors' alignments, so its bytes are whole words of 64 bits.
    words = [mask.view(np.uint64) for mask in masks]
    shared = np.zeros((len(words), len(words)), np.int64)
    for row, own in enumerate(words):
        for column in range(row, len(words)):
            count = int(np.bitwise_count(own & words[column]).sum(dtype=np.int64))
            shared[row, column] = shared[column, row] = count
    return shared
