"""What extra passes do that bring no new task: they converge (Theorem F.3), and they move the experts."""

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.parity.checkpoints import Checkpoints
from bench.parity.formulas import Learned, Norm, decouple, learn, unify_again

SLACK = 1e-6
"""Relative; rescalers are formed from float32 entries."""


def repeat_passes(
    checkpoints: Checkpoints, norm: Norm, *, num_passes: int, on_step: Callable[[], None]
) -> dict[str, Any]:
    """Rescalers and movement by pass, from the revision with all tasks; whether the theorem's claims hold.

    `rescalers` and `moved` have a row a pass, 0 being the revision itself; moved is the relative L2 distance
    of an expert's delta from the one it had there.
    """
    learned: Learned | None = None
    for name in checkpoints.names:
        learned = learn(learned, checkpoints.delta(name), norm)
        on_step()
    assert learned is not None, "a folder of fine-tunes has at least two"
    start, rescalers, moved = learned, [list(learned.rescalers)], [[0.0] * len(learned.masks)]
    bits_changed, growth = [], []
    for _ in range(num_passes):
        after = unify_again(learned, norm)
        bits_changed.append(_bits_changed(learned, after))
        growth.append(_largest_growth(learned, after))
        rescalers.append(list(after.rescalers))
        moved.append([_distance(start, after, task) for task in range(len(after.masks))])
        learned = after
        on_step()
    return {
        "norm": norm,
        "rescalers": rescalers,
        "moved": moved,
        "bits_changed": bits_changed,
        "largest_growth_of_unified": growth,
        **_claims(rescalers, bits_changed, growth),
    }


def _claims(rescalers: list[list[float]], bits_changed: list[int], growth: list[float]) -> dict[str, bool]:
    """The theorem, claim by claim; the first pass may do what the later ones may not."""
    later = np.array(rescalers[2:])
    return {
        "masks_are_fixed": not any(bits_changed[1:]),
        "rescalers_are_at_most_one": bool((later <= 1 + SLACK).all()),
        "rescalers_never_fall": bool((np.diff(later, axis=0) >= -SLACK).all()),
        "unified_never_grows": all(each <= SLACK for each in growth[1:]),
    }


def _bits_changed(before: Learned, after: Learned) -> int:
    return sum(
        int((mask[name] != after.masks[task][name]).sum())
        for task, mask in enumerate(before.masks)
        for name in mask
    )


def _largest_growth(before: Learned, after: Learned) -> float:
    """How much |u| grew where it grew most, relative to the largest |u| of its tensor; 0 where it fell."""
    worst = 0.0
    for name, values in before.unified.items():
        grown = np.abs(after.unified[name]) - np.abs(values)
        largest = float(np.abs(values).max(initial=0.0))
        if largest > 0:
            worst = max(worst, float(grown.max(initial=0.0)) / largest)
    return worst


def _distance(before: Learned, after: Learned, task: int) -> float:
    was, has = decouple(before, task), decouple(after, task)
    apart = sum(float(np.square(has[name] - was[name], dtype=np.float64).sum()) for name in was)
    size = sum(float(np.square(was[name], dtype=np.float64).sum()) for name in was)
    return float(np.sqrt(apart / size)) if size > 0 else 0.0
