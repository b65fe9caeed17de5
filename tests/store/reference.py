"""Slow transcriptions of the method, against which the store's streaming fusion is held.

`closed_form` says the streaming formulas one parameter at a time with scalars; `Textbook` is the published
procedure: every old expert is decoupled in full, then all deltas are unified at once. Neither shares a line
with the store.
"""

from dataclasses import dataclass, field

import numpy as np

F32 = np.float32


def closed_form(unified, masks, rescalers, delta):
    """(u', keep-reduced old masks, new mask) of one fusion, by scalars in float32."""
    unified_new = np.zeros_like(unified)
    masks_new = [np.zeros(len(unified), dtype=bool) for _ in range(len(masks) + 1)]
    for k in range(len(unified)):
        votes = F32(0)
        largest = F32(0)
        for mask, rescaler in zip(masks, rescalers, strict=True):
            if mask[k]:
                votes = F32(votes + F32(rescaler))
                largest = max(largest, F32(rescaler))
        vote = F32(F32(unified[k] * votes) + delta[k])
        gamma = 1 if vote > 0 else -1
        keep = unified[k] * gamma > 0
        won = delta[k] * gamma > 0
        old = F32(abs(unified[k]) * largest) if keep else F32(0)
        new = abs(delta[k]) if won else F32(0)
        magnitude = max(old, new)
        unified_new[k] = gamma * magnitude if magnitude else F32(0)
        for i, mask in enumerate(masks):
            masks_new[i][k] = mask[k] and keep and magnitude > 0
        masks_new[-1][k] = won and magnitude > 0
    return unified_new, masks_new


def norm(values, starts, sizes, kind):
    """sum |x|, or the sum over tensors of the mean |x|, in float64."""
    parts = [np.abs(values[a : a + n]).astype(np.float64) for a, n in zip(starts, sizes, strict=True)]
    if kind == "global_l1":
        return sum(part.sum() for part in parts)
    return sum(part.mean() for part in parts if len(part))


@dataclass
class Textbook:
    """Decouple every old task, then unify all: method steps 2 to 4 as published.

    With `keeps_norms`, lambda is formed with the norm of the task's original delta, which equals the norm of
    its decoupled delta (Lemma F.2) but for the float32 rounding of the latter; without, with the decoupled
    delta's, as the released code does.
    """

    starts: list
    sizes: list
    kind: str
    keeps_norms: bool = True
    norms: list = field(default_factory=list)
    unified: np.ndarray | None = None
    masks: list = field(default_factory=list)
    rescalers: list = field(default_factory=list)

    def learn(self, delta):
        """Fold one more delta in; returns the exact votes of this step (float64)."""
        decoupled = [
            F32(rescaler) * np.where(mask, self.unified, F32(0))
            for mask, rescaler in zip(self.masks, self.rescalers, strict=True)
        ]
        deltas = [*decoupled, delta]
        votes = np.sum([d.astype(np.float64) for d in deltas], axis=0)
        total = np.zeros_like(delta)
        for one in deltas:
            total = total + one
        gamma = np.where(total > 0, F32(1), F32(-1))
        agreeing = [np.where(one * gamma > 0, np.abs(one), F32(0)) for one in deltas]
        self.unified = gamma * np.max(agreeing, axis=0) + F32(0)
        self.masks = [one * gamma > 0 for one in deltas]
        decoupled_norms = [norm(one, self.starts, self.sizes, self.kind) for one in deltas]
        self.norms = [*self.norms, decoupled_norms[-1]] if self.keeps_norms else decoupled_norms
        self.rescalers = [
            size / norm(np.where(mask, self.unified, F32(0)), self.starts, self.sizes, self.kind)
            for size, mask in zip(self.norms, self.masks, strict=True)
        ]
        return votes
