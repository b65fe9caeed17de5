"""Folds arrays through the store's fusion without files, a chunk at a time."""

from dataclasses import dataclass, field

import numpy as np

from store.bits import pack_bits, unpack_bits
from store.codecs.floats import round_to
from store.fusion import OldTask, TensorWeights, fusion_kind

CHUNK = 256


@dataclass
class Model:
    """A model's fused state in memory: unified delta, masks and triggers of all its tasks."""

    sizes: list
    norm: str = "global_l1"
    dtype: str = "float32"
    kind: str = "condu"
    unified: np.ndarray | None = None
    masks: list = field(default_factory=list)
    tasks: list = field(default_factory=list)

    @property
    def starts(self):
        return list(np.cumsum([0, *self.sizes[:-1]]))

    def learn(self, delta):
        """Fold one more delta in, in chunks of 256, and keep what comes out."""
        size = len(delta)
        unified = np.zeros(size, np.float32) if self.unified is None else self.unified
        weights = TensorWeights.of(self.norm, starts=np.array(self.starts), sizes=np.array(self.sizes))
        old = [OldTask(task.rescaler, task.l1_norm) for task in self.tasks]
        fold = fusion_kind(self.kind).begin(
            old_tasks=old, weights=weights, round_stored=lambda chunk: round_to(chunk, self.dtype)
        )
        unified_new = np.zeros_like(unified)
        masks_new = [np.zeros(size, bool) for _ in range(len(self.masks) + 1)]
        for start in range(0, size, CHUNK):
            part = slice(start, min(start + CHUNK, size))

            def write(task, bits, part=part):
                masks_new[task][part] = unpack_bits(bits, part.stop - part.start)

            unified_new[part] = fold.add_chunk(
                start,
                unified=unified[part],
                delta=delta[part],
                read_mask=lambda task, part=part: pack_bits(self.masks[task][part]),
                write_mask=write,
            )
        self.unified, self.masks, self.tasks = unified_new, masks_new, fold.finish()
        return self

    def delta(self, task):
        """The task's decoupled delta as it is served."""
        return fusion_kind(self.kind).decouple(
            unified=self.unified, mask=pack_bits(self.masks[task]), rescaler=self.tasks[task].rescaler
        )
