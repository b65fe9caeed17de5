"""What the order of learning does: each task once in each place, against all originals unified at once."""

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.parity.agreement import fold
from bench.parity.checkpoints import Checkpoints
from bench.parity.formulas import Delta, Norm, decouple, unify


def rotate_orders(checkpoints: Checkpoints, norm: Norm, on_step: Callable[[], None]) -> dict[str, Any]:
    """How near each task's expert is to its original delta at the end, by the place where it was learned.

    The orders are the rotations of the given one, folded by the store, so that every task stands once in
    every place. `cosine` and `relative_l2` have a row a place (the first learned first) and a column a task;
    `one_shot` has what unifying all originals at once leaves, where no task comes before another.
    """
    names = checkpoints.names
    shape = (len(names), len(names))
    cosines, distances = np.zeros(shape), np.zeros(shape)
    for first in range(len(names)):
        order = (*names[first:], *names[:first])
        head: str | None = None
        for name in order:
            head, manifest = fold(checkpoints, name, parent=head, norm=norm)
            on_step()
        unified = checkpoints.store.load_unified(checkpoints.base, manifest)
        for place, name in enumerate(order):
            served = checkpoints.served(manifest, name, unified)
            task = names.index(name)
            cosines[place, task], distances[place, task] = _fidelity(served, checkpoints.delta(name))
    return {
        "norm": norm,
        "cosine": cosines.tolist(),
        "relative_l2": distances.tolist(),
        "one_shot": _one_shot(checkpoints, norm),
    }


def _one_shot(checkpoints: Checkpoints, norm: Norm) -> dict[str, list[float]]:
    originals = [checkpoints.delta(name) for name in checkpoints.names]
    learned = unify(originals, norm)
    found = [_fidelity(decouple(learned, task), original) for task, original in enumerate(originals)]
    cosines, distances = zip(*found, strict=True)
    return {"cosine": list(cosines), "relative_l2": list(distances)}


def _fidelity(served: Delta, original: Delta) -> tuple[float, float]:
    """The cosine of the two, and the L2 distance relative to the original."""
    product = sizes = size = 0.0
    for name, values in original.items():
        one, other = served[name].astype(np.float64), values.astype(np.float64)
        product += float(one @ other)
        sizes += float(one @ one)
        size += float(other @ other)
    cosine = product / np.sqrt(sizes * size) if sizes > 0 else 0.0
    return float(cosine), float(np.sqrt(max(sizes - 2 * product + size, 0.0) / size))
