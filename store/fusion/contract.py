"""What every fusion kind promises, and the measures all of them share.

A fusion kind says how a new task's delta is folded into what all tasks share, and how one expert is rebuilt
from the shared part and what the task owns. Everything works on chunks of the flat buffer in ascending
order, so that the memory it takes depends neither on the number of tasks nor on the size of the model. It
touches no disk, no network and no clock.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

from store.bits import PackedBits

Chunk = Float32[np.ndarray, " elements"]
"""A chunk of a flat buffer; its first element lies at a multiple of CHUNK_ELEMENTS."""

ReadMask = Callable[[int], PackedBits]
"""Task index -> packed bits of the current chunk; called more than once, so that no caller holds all tasks'
bits."""

WriteMask = Callable[[int, PackedBits], None]
"""Takes the new packed bits of the current chunk of the task with this index."""

RoundStored = Callable[[Chunk], Chunk]


@dataclass(frozen=True)
class TensorWeights:
    """How the norm of a flat buffer is formed from its tensors' L1 sums.

    `global_l1` (the paper): weights of 1, so the norm is sum |x|. `tensor_mean_l1` (the released code,
    EMR-Merging): weights of 1 / size, so it is the sum over tensors of the mean |x|.
    """

    starts: Int64[np.ndarray, " tensors"]
    weights: Float64[np.ndarray, " tensors"]

    @classmethod
    def of(
        cls, norm: str, *, starts: Int64[np.ndarray, " tensors"], sizes: Int64[np.ndarray, " tensors"]
    ) -> "TensorWeights":
        """The weights of the norm `global_l1` or `tensor_mean_l1`; empty tensors weigh nothing."""
        if norm == "global_l1":
            return cls(starts, np.ones(len(sizes)))
        return cls(starts, np.divide(1.0, sizes, out=np.zeros(len(sizes)), where=sizes > 0))


class L1Sums:
    """Accumulates sum |x| per tensor over chunks that come in ascending order, in float64."""

    def __init__(self, weights: TensorWeights) -> None:
        self._weights = weights
        self._sums = np.zeros(len(weights.starts))

    def add(self, start: int, values: Chunk) -> None:
        """Add a chunk that begins at element `start` of the flat buffer."""
        starts = self._weights.starts
        first = max(int(np.searchsorted(starts, start, side="right")) - 1, 0)
        last = int(np.searchsorted(starts, start + len(values), side="left"))
        cuts = np.maximum(starts[first:last] - start, 0)
        # Tensors without elements repeat their neighbour's start; reduceat would count the neighbour for
        # them.
        distinct = np.append(np.diff(cuts) > 0, True)
        sums = np.add.reduceat(np.abs(values), cuts[distinct], dtype=np.float64)
        self._sums[first:last][distinct] += sums

    @property
    def norm(self) -> float:
        """The weighted norm of all that was added."""
        return math.fsum(self._weights.weights * self._sums)


class Closeness:
    """Accumulates, in float64, how close a rescaled vector is to a reference."""

    def __init__(self) -> None:
        self._xx = self._rr = self._xr = 0.0

    def add(self, vector: Chunk, reference: Chunk) -> None:
        """Add a chunk of the vector (before rescaling) and of the reference."""
        x, r = vector.astype(np.float64), reference.astype(np.float64)
        self._xx += float(x @ x)
        self._rr += float(r @ r)
        self._xr += float(x @ r)

    def relative_l2(self, rescaler: float, reference_scale: float = 1.0) -> float:
        """||rescaler x - scale r|| / ||scale r||; 0 if both are zero, infinite if only the reference is."""
        reference = reference_scale**2 * self._rr
        distance = rescaler**2 * self._xx - 2 * rescaler * reference_scale * self._xr + reference
        if reference == 0.0:
            return 0.0 if self._xx == 0.0 else math.inf
        return math.sqrt(max(distance, 0.0) / reference)

    @property
    def cosine(self) -> float:
        """cos(x, r); 0 where either is zero."""
        product = math.sqrt(self._xx) * math.sqrt(self._rr)
        return self._xr / product if product > 0.0 else 0.0


@dataclass(frozen=True)
class FoldedTask:
    """What a fusion left of one task.

    Attributes:
        rescaler: lambda, float64; 0 where the mask is empty.
        l1_norm: N, the norm of the task's original delta, float64; never changes.
        bits_set: Set bits of the mask.
        bits_cleared: Bits this fusion cleared; for the new task, non-zero entries of its delta that lost the
            vote.
        relative_l2: ||delta~ - r|| / ||r||, with r the original delta (new task) or the delta decoupled
            before (old task).
        cosine: cos(delta~, r).
    """

    rescaler: float
    l1_norm: float
    bits_set: int
    bits_cleared: int
    relative_l2: float
    cosine: float


@dataclass(frozen=True)
class OldTask:
    """What a fusion needs to know of a task learned before: its rescaler and its original delta's norm."""

    rescaler: float
    l1_norm: float


class Fold(ABC):
    """One fusion in progress: chunks go in in ascending order, then `finish` tells the outcome."""

    @abstractmethod
    def add_chunk(
        self, start: int, *, unified: Chunk, delta: Chunk, read_mask: ReadMask, write_mask: WriteMask
    ) -> Chunk:
        """Fold one chunk of the new delta in; return the shared part's new chunk as it will be stored.

        Calls `write_mask` once for every task in order, the new task last.
        """

    @abstractmethod
    def finish(self) -> list[FoldedTask]:
        """What the fusion left of each task, the new one last."""


class FusionKind(ABC):
    """A way to share parameters between tasks."""

    @abstractmethod
    def begin(
        self, *, old_tasks: Sequence[OldTask], weights: TensorWeights, round_stored: RoundStored
    ) -> Fold:
        """A fusion of one new task into the old ones.

        Args:
            old_tasks: The tasks learned before, in their order.
            weights: The norm in which N and lambda are measured.
            round_stored: What storing and reading back does to a chunk of the shared part.
        """

    @abstractmethod
    def decouple(self, *, unified: Chunk, mask: PackedBits, rescaler: float) -> Chunk:
        """A chunk of the task's delta as it is served: float32, exact zeros where the task owns nothing."""

    @abstractmethod
    def rebuild(self, *, base: Chunk, unified: Chunk, mask: PackedBits, rescaler: float, out: Chunk) -> None:
        """Fill `out` with a chunk of the expert, base + decoupled delta.

        Entries that the task does not own equal the base's, bit for bit.
        """
