"""Whether the store computes what the formulas say, task by task and in both norms."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.parity.checkpoints import Checkpoints
from bench.parity.formulas import Delta, Learned, Norm, decouple, learn
from store.bits import unpack_bits
from store.checkpoints import NewTask
from store.experts import open_mask
from store.manifest import FusionOptions, Manifest
from store.parameters import ParameterSpace

LARGEST_ERROR = 1e-6
"""Of a rescaler, relative; where a vote near a tie fell the other way, the rescalers of its tasks feel it."""

ERROR_A_FOLD = 2.0**-23
"""Of u, relative, that a fold may add in a chain: its rescaler may round to the neighbouring float32."""

_ROUNDING = 2.0**-24
_PROTOTYPES = "no task of this comparison has prototypes"

Bools = dict[str, NDArray[np.bool_]]


@dataclass(frozen=True)
class Comparison:
    """The store's revision held against the formulas', after one task.

    Attributes:
        task: The one that was learned.
        entries: Parameters compared.
        near_ties: Entries whose vote lies within float rounding of zero, so that the order of additions
            decides it.
        decided_otherwise: Those of them that the store decided otherwise.
        unified_differs: Entries of u that differ in a bit though their vote is clear; 0 is parity.
        masks_differ: Mask bits that differ though their vote is clear, over all tasks; 0 is parity.
        rescaler_error: The largest relative difference of a rescaler.
    """

    task: str
    entries: int
    near_ties: int
    decided_otherwise: int
    unified_differs: int
    masks_differ: int
    rescaler_error: float

    @property
    def agrees(self) -> bool:
        """Whether it is the same revision."""
        return not self.unified_differs and not self.masks_differ and self.rescaler_error <= LARGEST_ERROR


def compare_norm(checkpoints: Checkpoints, norm: Norm, on_step: Callable[[], None]) -> dict[str, Any]:
    """Both comparisons of one norm after each task, and whether all of them agree.

    `steps` starts the formulas from what the store held before the task, so that each fold is judged alone.
    `chain` starts them once, from the first task, and never looks at the store again: what is off by a
    rounding stays so. There a unified delta may differ in its last bits, and entries that were near a tie at
    any step are left out from then on; `largest_unified_error` is relative.
    """
    steps, chain = [], []
    store: Learned | None = None
    alone: Learned | None = None
    manifest: tuple[str, Manifest] | None = None
    undecided = {spec.name: np.zeros(spec.size, dtype=np.bool_) for spec in checkpoints.base.space.fused}
    for name in checkpoints.names:
        delta = checkpoints.delta(name)
        expected, ties = learn(store, delta, norm), _near_ties(store, delta)
        undecided = {tensor: undecided[tensor] | near for tensor, near in _near_ties(alone, delta).items()}
        alone = learn(alone, delta, norm)
        manifest = fold(checkpoints, name, parent=manifest[0] if manifest else None, norm=norm)
        store = read_revision(checkpoints, manifest[1])
        steps.append(compare_step(name, store, expected, ties=ties))
        chain.append(compare_chain(name, store, alone, undecided=undecided))
        on_step()
    return {
        "steps": [{**asdict(step), "agrees": step.agrees} for step in steps],
        "chain": chain,
        "agrees": all(step.agrees for step in steps) and all(row["agrees"] for row in chain),
    }


def fold(checkpoints: Checkpoints, name: str, *, parent: str | None, norm: Norm) -> tuple[str, Manifest]:
    """The store's revision with that task folded in, its digest and its manifest; the parent is let go."""
    prototypes = checkpoints.store.blobs.put(_PROTOTYPES.encode()).digest
    outcome = checkpoints.store.fold(
        checkpoints.base,
        parent=parent,
        options=FusionOptions(rescaler_norm=norm),
        new_task=NewTask(name, (name,), ("a photo of a {}.",), prototypes),
        checkpoint=checkpoints.files[name],
    )
    if parent is not None:
        for digest in _artefacts(checkpoints.store.manifest(parent)) - _artefacts(outcome.manifest):
            checkpoints.store.blobs.delete(digest)
    return outcome.manifest_digest, outcome.manifest


def _artefacts(manifest: Manifest) -> set[str]:
    """What is large of a revision; a mask that a task kept is the next revision's as well."""
    unified = {manifest.unified} if manifest.unified else set()
    return unified | {task.mask for task in manifest.tasks}


def read_revision(checkpoints: Checkpoints, manifest: Manifest) -> Learned:
    """What the store holds, as the formulas write it."""
    space, store = checkpoints.base.space, checkpoints.store
    unified = store.load_unified(checkpoints.base, manifest).flat
    masks = []
    for task in manifest.tasks:
        reader = open_mask(store.blobs, task.mask, space)
        packed = np.concatenate([reader.chunk(index) for index in range(reader.num_chunks)])
        masks.append(_by_tensor(space, unpack_bits(packed, space.flat_size)))
    return Learned(
        unified={name: view.reshape(-1).numpy() for name, view in space.views(unified).items()},
        masks=tuple(masks),
        rescalers=tuple(task.rescaler for task in manifest.tasks),
    )


def _by_tensor(space: ParameterSpace, flat: NDArray[np.bool_]) -> Bools:
    return {spec.name: flat[spec.offset : spec.offset + spec.size] for spec in space.fused}


def _near_ties(learned: Learned | None, delta: Delta) -> Bools:
    """Where the exact sum of the votes is less than what float32 may lose in adding them up.

    Entries that no task moved are no ties: all ways of adding zeros give zero.
    """
    deltas = [delta] if learned is None else [
        *(decouple(learned, task) for task in range(len(learned.masks))), delta,
    ]  # fmt: skip
    found = {}
    for name in delta:
        votes = np.zeros(len(delta[name]))
        magnitudes = np.zeros(len(delta[name]))
        for each in deltas:
            votes += each[name]
            magnitudes += np.abs(each[name])
        allowed = (len(deltas) + 1) * _ROUNDING * magnitudes
        found[name] = (np.abs(votes) <= allowed) & (magnitudes > 0)
    return found


def compare_step(name: str, store: Learned, expected: Learned, *, ties: Bools) -> Comparison:
    """What the store holds against what the formulas make of the same revision and task."""
    decided = unified_differs = masks_differ = 0
    for tensor, near in ties.items():
        differs = store.unified[tensor] != expected.unified[tensor]
        unified_differs += int((differs & ~near).sum())
        for ours, theirs in zip(store.masks, expected.masks, strict=True):
            changed = ours[tensor] != theirs[tensor]
            masks_differ += int((changed & ~near).sum())
            differs = differs | changed
        decided += int((differs & near).sum())
    return Comparison(
        task=name,
        entries=sum(len(near) for near in ties.values()),
        near_ties=sum(int(near.sum()) for near in ties.values()),
        decided_otherwise=decided,
        unified_differs=unified_differs,
        masks_differ=masks_differ,
        rescaler_error=_rescaler_error(store.rescalers, expected.rescalers),
    )


def compare_chain(name: str, store: Learned, alone: Learned, *, undecided: Bools) -> dict[str, Any]:
    """What the store holds against what the formulas made of all tasks so far, alone."""
    masks_differ = same = 0
    worst = 0.0
    for tensor, near in undecided.items():
        clear = ~near
        ours, theirs = store.unified[tensor][clear], alone.unified[tensor][clear]
        same += int((ours == theirs).sum())
        error = np.abs(ours - theirs) / np.maximum(np.abs(theirs), np.finfo(np.float32).tiny)
        worst = max(worst, float(error.max(initial=0.0)))
        for one, other in zip(store.masks, alone.masks, strict=True):
            masks_differ += int((one[tensor] != other[tensor])[clear].sum())
    rescaler_error = _rescaler_error(store.rescalers, alone.rescalers)
    left_out = sum(int(near.sum()) for near in undecided.values())
    compared = sum(len(near) for near in undecided.values()) - left_out
    return {
        "task": name,
        "near_ties_so_far": left_out,
        "share_of_unified_the_same": same / compared if compared else 1.0,
        "largest_unified_error": worst,
        "masks_differ": masks_differ,
        "rescaler_error": rescaler_error,
        "agrees": not masks_differ
        and worst <= len(store.masks) * ERROR_A_FOLD
        and rescaler_error <= LARGEST_ERROR,
    }


def _rescaler_error(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return max(
        abs(one - other) / max(abs(other), np.finfo(float).tiny)
        for one, other in zip(ours, theirs, strict=True)
    )
