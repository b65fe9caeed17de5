"""What each set of kernels does with one chunk."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64, UInt8
from torch import Tensor

from store.fusion.contract import Chunk, ReadMask, WriteMask, WriteUnified
from store.fusion.measures import Segments


@dataclass(frozen=True)
class ChunkSums:
    """What one chunk adds to the measures of each task, the new task last; sums are float64.

    Attributes:
        products: Sum of weight |x|, x x, x r and r r, where x = M' u' (the task's share of the new unified
            delta) and r = M u (an old task) or delta (the new one).
        bits: Set bits before and after; for the new task, non-zero entries of its delta stand before.
        new_norm: Sum of weight |delta|.
    """

    products: Float64[np.ndarray, "tasks 4"]
    bits: Int64[np.ndarray, "tasks 2"]
    new_norm: float


class Kernels(ABC):
    """The arithmetic of a fusion and of a rebuild; may be used by several threads at a time."""

    @abstractmethod
    def fold_chunk(
        self,
        *,
        unified: Chunk,
        delta: Chunk,
        rescalers: Float32[np.ndarray, " old_tasks"],
        segments: Segments,
        read_mask: ReadMask,
        write_mask: WriteMask,
        write_unified: WriteUnified,
    ) -> ChunkSums:
        """Fold one chunk of the new delta in; see store.fusion.contract.Fold.add_chunk."""

    @abstractmethod
    def rebuild(
        self,
        *,
        base: Float[Tensor, " elements"],
        unified: Float[Tensor, " elements"],
        mask: UInt8[Tensor, " bytes"],
        rescaler: float,
        out: Float[Tensor, " elements"],
    ) -> None:
        """Out = base + rescaler (M * unified), one float32 rounding of the product and one of the sum."""
