"""What every fusion kind promises.

A fusion kind says how a new task's delta is folded into what all tasks share, and how one expert is rebuilt
from the shared part and what the task owns. Everything works on chunks of the flat buffer, so that the memory
it takes depends neither on the number of tasks nor on the size of the model. It touches no disk, no network
and no clock.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from store.bits import PackedBits
from store.fusion.measures import TensorWeights

Chunk = Float32[np.ndarray, " elements"]
"""A chunk of a flat buffer, contiguous and writable. Its size, and where tensors start in it, are multiples
of ALIGNMENT."""

ReadMask = Callable[[int, PackedBits], object]
"""Task index, buffer -> fills the buffer with the packed bits of the current chunk; may be called twice for a
task, so that nobody holds all tasks' bits."""

WriteMask = Callable[[int, PackedBits], None]
"""Takes the new packed bits of the current chunk of the task with this index; they are valid during the call
only."""

WriteUnified = Callable[[Chunk], Chunk]
"""Takes the shared part's new chunk, valid during the call only, and returns it as reading will give it back
(rounded, where it is stored in fewer bits): masks and rescalers are formed with what is stored."""


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
    """One fusion in progress: every chunk goes in once, then `finish` tells the outcome.

    Chunks may go in in any order and from several threads: the outcome is the same to the last bit.
    """

    @abstractmethod
    def add_chunk(
        self,
        start: int,
        *,
        unified: Chunk,
        delta: Chunk,
        read_mask: ReadMask,
        write_mask: WriteMask,
        write_unified: WriteUnified,
    ) -> None:
        """Fold one chunk of the new delta in.

        Calls `write_unified` once, then `write_mask` once for every task in order, the new task last.
        """

    @abstractmethod
    def finish(self) -> list[FoldedTask]:
        """What the fusion left of each task, the new one last."""


class FusionKind(ABC):
    """A way to share parameters between tasks."""

    @abstractmethod
    def begin(self, *, old_tasks: Sequence[OldTask], weights: TensorWeights, device: str = "cpu") -> Fold:
        """A fusion of one new task into the old ones.

        Args:
            old_tasks: The tasks learned before, in their order.
            weights: The norm in which N and lambda are measured.
            device: Where the arithmetic is done, as torch names it. The shared part and the masks come out
                bit for bit the same on each; rescalers agree to 1e-12.
        """

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
        """Fill `out` with a piece of the expert, base + decoupled delta, on the device the tensors are on.

        The piece is float32 and starts at a multiple of 32 elements. Entries that the task does not own equal
        the base's, bit for bit.
        """
