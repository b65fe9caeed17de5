"""Whether two implementations computed the same: a time is reported only where they did."""

from typing import Any

import numpy as np
import torch

from bench.packed import PackedModel
from bench.textbook import Tensors, TextbookModel
from store.bits import unpack_bits
from store.parameters import ParameterSpace

LARGEST_RELATIVE_ERROR = 1e-12  # of a rescaler
_FLOAT32_ROUNDING = 2.0**-24


def check_fusion(
    before: PackedModel, delta: torch.Tensor, *, ours: PackedModel, textbook: TextbookModel
) -> dict[str, Any]:
    """Hold a fusion against the textbook's: unified delta and masks bit for bit, rescalers within 1e-12.

    The textbook adds the tasks' deltas one by one, the store adds their rescalers first. Where a vote lies
    within the rounding of those sums, the two may decide it differently. Such entries are counted, must lie
    within that rounding, and are left out; a rescaler may differ by what they weigh.
    """
    space = ours.space
    theirs = _flat(space, textbook.unified)
    differs = theirs != ours.unified
    masks = [unpack_bits(row, space.flat_size) for row in ours.buffers.masks]
    for ours_mask, their_mask in zip(masks, textbook.masks, strict=True):
        differs |= ours_mask != _flat(space, their_mask)
    tied = np.flatnonzero(differs)
    votes, magnitudes = _votes(before, delta.numpy(), tied)
    allowed = (len(before.tasks) + 2) * _FLOAT32_ROUNDING * magnitudes
    assert np.all(np.abs(votes) <= allowed), "the fusions differ where no vote is tied"
    worst = 0.0
    for index, (task, theirs_lambda) in enumerate(zip(ours.tasks, textbook.rescalers, strict=True)):
        error = abs(task.rescaler - theirs_lambda) / max(abs(theirs_lambda), np.finfo(float).tiny)
        weight = np.abs(ours.unified[tied]).sum() + np.abs(theirs[tied]).sum()
        support = float(np.abs(np.where(masks[index], ours.unified, 0)).sum(dtype=np.float64))
        slack = weight / support if support else 0.0
        assert error <= LARGEST_RELATIVE_ERROR + slack, f"lambda {index} differs by {error:.1e}"
        worst = max(worst, error)
    return {"entries_within_rounding_of_a_tie": len(tied), "largest_rescaler_error": worst}


def check_equal(name: str, ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Stop where an implementation's weights are not ours, bit for bit."""
    same = torch.equal(ours.view(torch.int32), theirs.view(torch.int32))
    assert same, f"{name} rebuilt other weights: {int((ours != theirs).sum())} entries differ"


def relative_l2(approximate: torch.Tensor, exact: torch.Tensor) -> float:
    """||approximate - exact|| / ||exact||, for peers that promise no exact result."""
    distance = torch.linalg.vector_norm(approximate - exact, dtype=torch.float64)
    return float(distance / torch.linalg.vector_norm(exact, dtype=torch.float64))


def _votes(before: PackedModel, delta: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The exact votes at these entries, and the sum of their parts' magnitudes."""
    votes = delta[where].astype(np.float64)
    magnitudes = np.abs(votes)
    unified = before.unified[where].astype(np.float64)
    for task, row in zip(before.tasks, before.buffers.masks, strict=True):
        owned = (row[where // 8] >> (where % 8).astype(np.uint8)) & 1
        part = float(np.float32(task.rescaler)) * owned * unified
        votes += part
        magnitudes += np.abs(part)
    return votes, magnitudes


def _flat(space: ParameterSpace, tensors: Tensors) -> np.ndarray:
    first = next(iter(tensors.values()))
    flat = torch.zeros(space.flat_size, dtype=first.dtype)
    for spec in space.fused:
        flat[spec.offset : spec.offset + spec.size] = tensors[spec.name].reshape(-1)
    return flat.numpy()
