"""Folds arrays through the store's fusion without files, a chunk at a time."""

from dataclasses import dataclass, field

import numpy as np
import torch

from store.bits import pack_bits, unpack_bits
from store.codecs.floats import encode_floats
from store.fusion import OldTask, TensorWeights, fusion_kind
from store.parameters import ALIGNMENT

CHUNK = 256


def aligned_starts(sizes):
    """Where tensors of these sizes begin in a flat buffer, and the buffer's size."""
    ends = np.cumsum([-(-size // ALIGNMENT) * ALIGNMENT for size in sizes])
    return [0, *(int(end) for end in ends[:-1])], int(ends[-1])


def scattered(values, sizes):
    """Values that stand one after the other, put where a flat buffer of these tensors has them."""
    starts, total = aligned_starts(sizes)
    flat = np.zeros(total, values.dtype)
    position = 0
    for start, size in zip(starts, sizes, strict=True):
        flat[start : start + size] = values[position : position + size]
        position += size
    return flat


@dataclass
class Model:
    """A model's fused state in memory: unified delta, masks and triggers of all its tasks."""

    sizes: list
    norm: str = "global_l1"
    dtype: str = "float32"
    kind: object = field(default_factory=lambda: fusion_kind("condu"))
    unified: np.ndarray | None = None
    masks: list = field(default_factory=list)
    tasks: list = field(default_factory=list)

    @property
    def starts(self):
        return aligned_starts(self.sizes)[0]

    def learn(self, delta):
        """Fold one more delta in, in chunks of 256, and keep what comes out."""
        size = len(delta)
        unified = np.zeros(size, np.float32) if self.unified is None else self.unified
        weights = TensorWeights.of(self.norm, starts=np.array(self.starts), sizes=np.array(self.sizes))
        old = [OldTask(task.rescaler, task.l1_norm) for task in self.tasks]
        fold = self.kind.begin(old_tasks=old, weights=weights)
        unified_new = np.zeros_like(unified)
        masks_new = [np.zeros(size, bool) for _ in range(len(self.masks) + 1)]
        for start in reversed(range(0, size, CHUNK)):
            part = slice(start, min(start + CHUNK, size))

            def read(task, out, part=part):
                out[:] = pack_bits(self.masks[task][part])

            def write(task, bits, part=part):
                masks_new[task][part] = unpack_bits(bits, part.stop - part.start)

            def write_unified(chunk, part=part):
                unified_new[part] = encode_floats(chunk, self.dtype).values
                return unified_new[part]

            fold.add_chunk(
                start,
                unified=unified[part],
                delta=delta[part],
                read_mask=read,
                write_mask=write,
                write_unified=write_unified,
            )
        self.unified, self.masks, self.tasks = unified_new, masks_new, fold.finish()
        return self

    def delta(self, task):
        """The task's decoupled delta as it is served."""
        out = torch.empty(len(self.unified))
        self.kind.rebuild(
            base=torch.zeros(len(self.unified)),
            unified=torch.from_numpy(self.unified),
            mask=torch.from_numpy(pack_bits(self.masks[task])),
            rescaler=self.tasks[task].rescaler,
            out=out,
        )
        return out.numpy()
