"""The store's fusion and rebuild on packed bits in memory: no files, the same calls as the store makes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.synthetic import views
from bench.textbook import TextbookModel
from store.bits import PackedBits, unpack_bits
from store.fusion import Chunk, FoldedTask, OldTask, TensorWeights, fusion_kind
from store.parallel import ordered_map
from store.parameters import CHUNK_ELEMENTS, ParameterSpace

KIND = "condu"


@dataclass(frozen=True)
class Buffers:
    """Where a fusion writes: a flat unified delta and packed masks, one row a task."""

    unified: np.ndarray
    masks: np.ndarray

    @classmethod
    def of(cls, space: ParameterSpace, num_tasks: int) -> "Buffers":
        """New buffers for so many tasks."""
        return cls(
            np.zeros(space.flat_size, dtype=np.float32),
            np.zeros((num_tasks, space.flat_size // 8), dtype=np.uint8),
        )


@dataclass(frozen=True)
class PackedModel:
    """All tasks of a model in memory: unified delta, packed masks, triggers."""

    space: ParameterSpace
    buffers: Buffers
    tasks: tuple[FoldedTask, ...]

    @classmethod
    def empty(cls, space: ParameterSpace) -> "PackedModel":
        """A model that has learned nothing."""
        return cls(space, Buffers.of(space, 0), ())

    @property
    def unified(self) -> np.ndarray:
        """The flat unified delta."""
        return self.buffers.unified

    def fuse(self, delta: Tensor, out: Buffers | None = None) -> "PackedModel":
        """The model with one more task, in `out` or in new buffers; fidelity is measured on the way."""
        target = out or Buffers.of(self.space, len(self.tasks) + 1)
        weights = TensorWeights.of("global_l1", starts=self.space.starts, sizes=self.space.sizes)
        old = [OldTask(task.rescaler, task.l1_norm) for task in self.tasks]
        fold = fusion_kind(KIND).begin(old_tasks=old, weights=weights)
        values, size = delta.numpy(), self.space.flat_size

        def fold_chunk(start: int) -> None:
            stop = min(start + CHUNK_ELEMENTS, size)
            bits = slice(start // 8, stop // 8)

            def read_mask(task: int, packed: PackedBits) -> None:
                packed[:] = self.buffers.masks[task, bits]

            def write_mask(task: int, packed: PackedBits) -> None:
                target.masks[task, bits] = packed

            def write_unified(chunk: Chunk) -> Chunk:
                target.unified[start:stop] = chunk
                return chunk

            fold.add_chunk(
                start,
                unified=self.buffers.unified[start:stop],
                delta=values[start:stop],
                read_mask=read_mask,
                write_mask=write_mask,
                write_unified=write_unified,
            )

        for _ in ordered_map(fold_chunk, range(0, size, CHUNK_ELEMENTS)):
            pass
        return PackedModel(self.space, target, tuple(fold.finish()))

    def textbook(self) -> TextbookModel:
        """The same model as the textbook keeps it."""
        size = self.space.flat_size
        masks = [torch.from_numpy(unpack_bits(row, size)) for row in self.buffers.masks]
        return TextbookModel(
            unified=self.space.views(torch.from_numpy(self.unified)),
            masks=[views(self.space, mask) for mask in masks],
            rescalers=[task.rescaler for task in self.tasks],
            norms=[task.l1_norm for task in self.tasks],
        )


def rebuild_into(out: Tensor, *, base: Tensor, unified: Tensor, mask: Tensor, rescaler: float) -> None:
    """The expert in `out`, chunk by chunk on all cores, straight from the packed bits."""
    kind = fusion_kind(KIND)

    def rebuild_chunk(start: int) -> None:
        stop = min(start + CHUNK_ELEMENTS, len(base))
        kind.rebuild(
            base=base[start:stop],
            unified=unified[start:stop],
            mask=mask[start // 8 : stop // 8],
            rescaler=rescaler,
            out=out[start:stop],
        )

    for _ in ordered_map(rebuild_chunk, range(0, len(base), CHUNK_ELEMENTS)):
        pass


def learned(space: ParameterSpace, deltas: Sequence[Tensor]) -> PackedModel:
    """The model after fusing these deltas one after the other."""
    model = PackedModel.empty(space)
    for delta in deltas:
        model = model.fuse(delta)
    return model
