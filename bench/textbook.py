"""The method as one would write it down with torch: dictionaries of tensors, bool masks, all tasks decoupled.

This is the peer of the fusion benchmark: method steps 2 to 4, tensor by tensor, all operations vectorised and
run by torch on all cores. It is told the norms of the original deltas, which saves it a pass over every task
that the published code takes.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


@dataclass
class TextbookModel:
    """Unified delta, bool masks, rescalers and original norms of all tasks."""

    unified: Tensors = field(default_factory=dict)
    masks: list[Tensors] = field(default_factory=list)
    rescalers: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)


def decouple(model: TextbookModel, task: int) -> Tensors:
    """The delta of one task, lambda (M * u)."""
    return {
        name: model.rescalers[task] * (model.masks[task][name] * unified)
        for name, unified in model.unified.items()
    }


def unify(deltas: list[Tensors]) -> tuple[Tensors, list[Tensors]]:
    """The unified delta and every task's mask."""
    unified: Tensors = {}
    masks: list[Tensors] = [{} for _ in deltas]
    for name in deltas[0]:
        stacked = torch.stack([delta[name] for delta in deltas])
        gamma = torch.where(stacked.sum(dim=0) > 0, 1.0, -1.0)
        agrees = stacked * gamma > 0
        unified[name] = gamma * torch.where(agrees, stacked.abs(), 0.0).amax(dim=0)
        for mask, row in zip(masks, agrees, strict=True):
            mask[name] = row
    return unified, masks


def norm(tensors: Tensors) -> float:
    """The sum of |x|, accumulated in float64."""
    return sum(float(tensor.abs().sum(dtype=torch.float64)) for tensor in tensors.values())


def fuse(model: TextbookModel, delta: Tensors) -> TextbookModel:
    """Learn one more task: decouple the old ones, unify all, form masks and rescalers anew."""
    deltas = [decouple(model, task) for task in range(len(model.masks))]
    deltas.append(delta)
    unified, masks = unify(deltas)
    norms = [*model.norms, norm(delta)]
    rescalers = []
    for size, mask in zip(norms, masks, strict=True):
        support = norm({name: mask[name] * unified[name] for name in unified})
        rescalers.append(size / support if support > 0 else 0.0)
    return TextbookModel(unified, masks, rescalers, norms)


def rebuild(base: Tensors, model: TextbookModel, task: int) -> Tensors:
    """The expert, theta0 + lambda (M * u)."""
    delta = decouple(model, task)
    return {name: weights + delta[name] for name, weights in base.items()}
