"""The method's formulas, transcribed one by one and as plainly as numpy allows.

Nothing of the store is used here, and nothing is clever: every old task is decoupled into a delta of its own,
all deltas are stacked, and each rule is one line. Elementwise arithmetic is float32, norms and rescalers are
float64.

    decouple    delta~_i = lambda_i (M_i u)
    unify       gamma = +1 where the sum over tasks of delta > 0, else -1 (a zero sum gives -1)
                u = gamma max |delta_i| over the tasks whose sign agrees with gamma (0 where none does)
                M_i = [delta_i gamma > 0] (an exact zero gives 0)
                lambda_i = ||delta_i|| / ||M_i u|| (0 where the mask is empty)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Norm = Literal["global_l1", "tensor_mean_l1"]
NORMS: tuple[Norm, ...] = ("global_l1", "tensor_mean_l1")

Delta = dict[str, NDArray[np.float32]]
Mask = dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Learned:
    """What is kept of the tasks so far: one unified delta, and a mask and a rescaler a task."""

    unified: Delta
    masks: tuple[Mask, ...]
    rescalers: tuple[float, ...]


def decouple(learned: Learned, task: int) -> Delta:
    """The delta that serves the task."""
    rescaler = np.float32(learned.rescalers[task])
    return {
        name: rescaler * (learned.masks[task][name] * unified) for name, unified in learned.unified.items()
    }


def unify(deltas: Sequence[Delta], norm: Norm) -> Learned:
    """One unified delta for all of these, with the masks and rescalers that take them apart again."""
    unified: Delta = {}
    masks: list[Mask] = [{} for _ in deltas]
    for name in deltas[0]:
        stacked = np.stack([delta[name] for delta in deltas])
        gamma = np.where(stacked.sum(axis=0) > 0, np.float32(1), np.float32(-1))
        agrees = stacked * gamma > 0
        unified[name] = gamma * np.where(agrees, np.abs(stacked), np.float32(0)).max(axis=0)
        for mask, row in zip(masks, agrees, strict=True):
            mask[name] = row
    rescalers = tuple(
        _ratio(norm_of(delta, norm), norm_of(masked(unified, mask), norm))
        for delta, mask in zip(deltas, masks, strict=True)
    )
    return Learned(unified, tuple(masks), rescalers)


def learn(learned: Learned | None, delta: Delta, norm: Norm) -> Learned:
    """What is kept after one more task."""
    return unify([*_decoupled(learned), delta], norm)


def unify_again(learned: Learned, norm: Norm) -> Learned:
    """What an extra pass without a new task makes of it."""
    return unify(_decoupled(learned), norm)


def norm_of(delta: Delta, norm: Norm) -> float:
    """||delta||: the sum of |x| (the paper), or the sum over tensors of the mean |x| (the released code)."""
    sums = {name: float(np.abs(values).sum(dtype=np.float64)) for name, values in delta.items()}
    if norm == "global_l1":
        return sum(sums.values())
    return sum(total / delta[name].size for name, total in sums.items() if delta[name].size)


def masked(unified: Delta, mask: Mask) -> Delta:
    """M u."""
    return {name: mask[name] * values for name, values in unified.items()}


def _decoupled(learned: Learned | None) -> list[Delta]:
    return [] if learned is None else [decouple(learned, task) for task in range(len(learned.masks))]


def _ratio(size: float, support: float) -> float:
    return size / support if support > 0 else 0.0
