"""What a task takes on disk, against whole checkpoints and against other ways to keep the same triggers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from bench import peers
from bench.steps import Steps
from bench.stores import GrowingModel, save_base, scratch_folder
from bench.synthetic import ARCHITECTURE, FULL_SIZE, SyntheticModel, clip_space, write_flat
from store.blobs.memory import MemoryBlobs
from store.checkpoints import CheckpointStore, FoldOutcome
from store.codecs.floats import DTYPES
from store.manifest import FusionOptions
from store.parameters import ParameterSpace
from store.safefile import tensor_bytes

PUBLISHED_DENSITY = 0.71
"""Mask density of 8 fine-tuned ViT-B/32 fused in one shot, measured on published checkpoints."""

SAMPLED_TASKS = 2  # of which the peers that take long are measured
_ONE_SHOT_TASKS = 8
_PEER_STEPS = 4


@dataclass(frozen=True)
class StoragePlan:
    """What to measure: sizes, and at how many tasks."""

    num_parameters: int = FULL_SIZE
    num_tasks: tuple[int, ...] = (1, 2, 4, 8, 20)
    dtypes: tuple[str, ...] = DTYPES

    @classmethod
    def quick(cls) -> "StoragePlan":
        """Small, for shape and sanity."""
        return cls(300_000).up_to(3)

    def up_to(self, most: int) -> "StoragePlan":
        """The same up to so many tasks."""
        counts = tuple(sorted({count for count in self.num_tasks if count < most} | {most}))
        return StoragePlan(self.num_parameters, counts, self.dtypes)


@dataclass(frozen=True)
class _Grown:
    """What the made tasks left behind.

    Attributes:
        rows: For each dtype, the sizes after each number of tasks that is asked for.
        full_bytes: One fp32 checkpoint as safetensors.
        checkpoints: Flat weights of the first tasks, for the peers.
        touched: Entries that each task changed.
        densities: Mask density by number of tasks, for the first dtype.
        samples: A piece of each of the first deltas.
    """

    rows: dict[str, list[dict[str, Any]]]
    full_bytes: int
    checkpoints: list[Tensor]
    touched: list[int]
    densities: dict[str, dict[str, float]]
    samples: list[Tensor]


def run_storage(plan: StoragePlan, steps: Steps) -> dict[str, Any]:
    """The whole benchmark; see docs/benchmarks.md for the keys."""
    steps.plan(max(plan.num_tasks) * (1 + len(plan.dtypes)) + _PEER_STEPS * (2 * SAMPLED_TASKS + 2))
    model = SyntheticModel(clip_space(plan.num_parameters))
    with scratch_folder() as folder:
        grown = _grow(model, plan, folder=folder, steps=steps)
        deltatensors = _deltatensors_bytes(model, grown.checkpoints[0], folder)
    steps.done(_PEER_STEPS)
    rows = grown.rows
    sizes = {"full": grown.full_bytes, "base": rows[plan.dtypes[0]][0]["base_bytes"]}
    torch_save = _ratios(plan, sizes, _torch_save_bytes(model.space, plan))
    return {
        **{
            column: {dtype: _column(rows[dtype], column) for dtype in plan.dtypes}
            for column in (
                "marginal_bytes_per_task",
                "marginal_bits_per_parameter",
                "marginal_times_less_than_full",
                "whole_ratio",
            )
        },
        "torch_save_ratio": torch_save,
        "full_checkpoint_bytes": grown.full_bytes,
        "parameters": model.space.num_parameters,
        "mask_density": grown.densities,
        "one_shot_density": {
            "measured": _one_shot_density(grown.samples),
            "published": PUBLISHED_DENSITY,
            "tasks": len(grown.samples),
        },
        "recipe": vars(model.recipe) | {"architecture": ARCHITECTURE},
        "by_dtype": rows,
        "peers": {
            "safetensors": {
                "bytes_per_task": grown.full_bytes,
                "whole_ratio": dict.fromkeys(map(str, plan.num_tasks), 1.0),
            },
            "torch_save": {"whole_ratio": torch_save},
            "numpy_packbits": {
                "whole_ratio": _ratios(plan, sizes, _numpy_bytes(model.space, plan)),
            },
            "zipnn": _zipnn(model, grown, plan, steps=steps),
            "deltatensors": _deltatensors(deltatensors, plan, sizes),
        },
    }


def _grow(model: SyntheticModel, plan: StoragePlan, *, folder: Path, steps: Steps) -> _Grown:
    """One model a dtype, all of one store in memory, learn the same tasks."""
    store = CheckpointStore(MemoryBlobs())
    base = save_base(store, model, folder)
    family: list[GrowingModel] = []
    models = {dtype: GrowingModel(store, base, _options(dtype), family=family) for dtype in plan.dtypes}
    grown = _Grown({dtype: [] for dtype in plan.dtypes}, 0, [], [], {}, [])
    path = folder / "checkpoint.safetensors"
    first_totals: dict[str, int] = {}
    for index in range(max(plan.num_tasks)):
        fine_tuned = model.checkpoint(index)
        write_flat(path, model.space, fine_tuned)
        full_bytes = path.stat().st_size
        _sample(grown, fine_tuned, model)
        steps.done()
        for dtype, growing in models.items():
            outcome = growing.learn(index, path)
            row = _sizes(store, outcome, full_bytes=full_bytes)
            first_totals.setdefault(dtype, row["total_bytes"])
            if index + 1 in plan.num_tasks:
                grown.rows[dtype].append(row | _growth(row, first_totals[dtype], full_bytes=full_bytes))
            steps.done()
        if index + 1 in plan.num_tasks:
            head = models[plan.dtypes[0]].head
            assert head is not None
            grown.densities[str(index + 1)] = _densities(head, grown.touched)
    return replace(grown, full_bytes=full_bytes)


def _options(dtype: str) -> FusionOptions:
    # A dtype of the codecs' list is one of those that the options allow.
    return FusionOptions(unified_dtype=cast("Any", dtype))


def _sample(grown: _Grown, fine_tuned: Tensor, model: SyntheticModel) -> None:
    """Keep what the peers and the density need of a task's checkpoint."""
    if len(grown.checkpoints) < SAMPLED_TASKS:
        grown.checkpoints.append(fine_tuned)
    grown.touched.append(int((fine_tuned != model.base).sum()))
    if len(grown.samples) < _ONE_SHOT_TASKS:
        largest = max(
            (spec for spec in model.space.fused if spec.name.startswith("visual.")),
            key=lambda spec: spec.size,
        )
        piece = slice(largest.offset, largest.offset + largest.size)
        grown.samples.append(fine_tuned[piece] - model.base[piece])


def _sizes(store: CheckpointStore, outcome: FoldOutcome, *, full_bytes: int) -> dict[str, Any]:
    """Bytes of everything that a revision keeps, the fp32 base included."""
    sizes = store.sizes(outcome.manifest)
    count = len(sizes.triggers)
    manifest = store.blobs.size_bytes(outcome.manifest_digest)
    total = sizes.total + manifest
    return {
        "tasks": count,
        "base_bytes": sizes.base,
        "unified_bytes": sizes.unified,
        "trigger_bytes": sum(sizes.triggers.values()),
        "prototype_bytes": sum(sizes.prototypes.values()),
        "manifest_bytes": manifest,
        "total_bytes": total,
        "whole_ratio": count * full_bytes / total,
        "relative_l2_of_newest": outcome.tasks[outcome.manifest.tasks[-1].name].relative_l2,
        "bits_per_parameter": 8 * sum(sizes.triggers.values()) / count / outcome.manifest.num_parameters,
    }


def _growth(row: dict[str, Any], first_total: int, *, full_bytes: int) -> dict[str, Any]:
    """What each task after the first added to the whole store; nothing is known of it at one task."""
    if row["tasks"] == 1:
        return {}
    marginal = (row["total_bytes"] - first_total) / (row["tasks"] - 1)
    return {
        "marginal_bytes_per_task": marginal,
        "marginal_bits_per_parameter": 32 * marginal / full_bytes,
        "marginal_times_less_than_full": full_bytes / marginal if marginal > 0 else None,
    }


def _column(rows: Iterable[Mapping[str, Any]], name: str) -> dict[str, Any]:
    return {str(row["tasks"]): row[name] for row in rows if name in row}


def _densities(head: FoldOutcome, touched: list[int]) -> dict[str, float]:
    tasks = head.manifest.tasks
    return {
        "of_all": float(np.mean([task.bits_set for task in tasks]) / head.manifest.num_parameters),
        "of_changed": float(
            np.mean([task.bits_set / max(count, 1) for task, count in zip(tasks, touched, strict=True)])
        ),
    }


def _one_shot_density(deltas: list[Tensor]) -> float:
    """Share of entries that agree with the sign of the sum, as published codes fuse: all tasks at once."""
    votes = torch.stack(deltas)
    return float((votes * torch.sign(votes.sum(0)) > 0).double().mean())


def _ratios(plan: StoragePlan, sizes: Mapping[str, int], kept: Mapping[int, int]) -> dict[str, float]:
    """N fp32 checkpoints divided by the base and what a peer keeps beside it."""
    return {str(count): count * sizes["full"] / (sizes["base"] + kept[count]) for count in plan.num_tasks}


def _torch_save_bytes(space: ParameterSpace, plan: StoragePlan) -> dict[int, int]:
    """Unified delta, bool masks and rescalers in one file; its size depends on the shapes alone."""
    answer = {}
    for count in plan.num_tasks:
        state = {
            "unified": {spec.name: torch.zeros(spec.shape) for spec in space.fused},
            "masks": [
                {spec.name: torch.zeros(spec.shape, dtype=torch.bool) for spec in space.fused}
                for _ in range(count)
            ],
            "rescalers": [1.0] * count,
        }
        answer[count] = peers.torch_saved_bytes(state)
    return answer


def _numpy_bytes(space: ParameterSpace, plan: StoragePlan) -> dict[int, int]:
    """The same with np.packbits for the masks and np.save for all; again by the shapes alone."""
    sink, mask = peers.CountingSink(), peers.CountingSink()
    for spec in space.fused:
        np.save(sink, np.zeros(spec.shape, dtype=np.float32))
        np.save(mask, np.packbits(np.zeros(spec.size, dtype=np.bool_)))
    return {count: sink.size_bytes + count * mask.size_bytes for count in plan.num_tasks}


def _zipnn(model: SyntheticModel, grown: _Grown, plan: StoragePlan, *, steps: Steps) -> dict[str, Any]:
    """Whole checkpoints and plain deltas through ZipNN, lossless; the mean of the first tasks."""
    if not peers.is_installed("zipnn"):
        return peers.missing("zipnn")
    checkpoints, deltas = [], []
    for flat in grown.checkpoints:
        checkpoints.append(len(peers.zipnn_compressed(tensor_bytes(flat))))
        steps.done(_PEER_STEPS)
        deltas.append(len(peers.zipnn_compressed(tensor_bytes(flat - model.base))))
        steps.done(_PEER_STEPS)
    checkpoint, delta = int(np.mean(checkpoints)), int(np.mean(deltas))
    base_bytes = grown.full_bytes
    return {
        "measured_tasks": len(checkpoints),
        "bytes_per_task": checkpoint,
        "bytes_per_task_of_deltas": delta,
        "whole_ratio": dict.fromkeys(map(str, plan.num_tasks), grown.full_bytes / checkpoint),
        "whole_ratio_of_deltas": {
            str(count): count * grown.full_bytes / (base_bytes + count * delta) for count in plan.num_tasks
        },
    }


def _deltatensors_bytes(model: SyntheticModel, flat: Tensor, folder: Path) -> int | None:
    if not peers.is_installed("deltatensors"):
        return None
    path = folder / "task.wdelta"
    peers.save_wdelta(path, fine_tuned=model.space.views(flat), base=model.space.views(model.base))
    return path.stat().st_size


def _deltatensors(size: int | None, plan: StoragePlan, sizes: Mapping[str, int]) -> dict[str, Any]:
    """A sign bit and a scale a row; its size depends on the shapes alone, so that one task tells all."""
    if size is None:
        return peers.missing("deltatensors")
    kept = {count: count * size for count in plan.num_tasks}
    return {"bytes_per_task": size, "lossy": True, "whole_ratio": _ratios(plan, sizes, kept)}
