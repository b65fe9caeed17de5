"""How fast and in how much memory a task is fused, against the method written down with torch."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import textbook
from bench.checks import check_fusion
from bench.many_tasks import measure_many_tasks, plan_steps
from bench.memory import measure_fold
from bench.packed import Buffers, PackedModel, learned
from bench.steps import Steps
from bench.stores import (
    GrowingModel,
    copy_base,
    copy_revision,
    new_task,
    packed_mask,
    save_base,
    scratch_folder,
)
from bench.synthetic import SyntheticModel, clip_space, views, write_flat
from bench.timing import Timing, as_dicts, interleaved, num_runs, ratio
from store.bits import unpack_bits
from store.blobs.files import FileBlobs
from store.blobs.memory import MemoryBlobs
from store.checkpoints import CheckpointStore
from store.parameters import ParameterSpace

_MEMORY_STEPS = 6  # a fresh process takes about as long as so many runs


@dataclass(frozen=True)
class FusionPlan:
    """What to measure.

    Attributes:
        num_tasks: Numbers of tasks, the new one included, at which the textbook is the peer.
        more_tasks: Further numbers of tasks, for the plot.
        sizes: Further numbers of parameters, for the plot, at `size_tasks` tasks.
        memory_tasks: Numbers of tasks at which peak memory is measured.
        many_tasks: How far one small model of `many_parameters` grows.
    """

    num_parameters: int = 20_000_000
    num_tasks: tuple[int, ...] = (10, 20)
    more_tasks: tuple[int, ...] = (2, 5)
    sizes: tuple[int, ...] = (1_000_000, 5_000_000)
    size_tasks: int = 10
    memory_tasks: tuple[int, ...] = (2, 8, 32)
    many_tasks: int = 1000
    many_parameters: int = 100_000
    repeats: int = 7

    @classmethod
    def quick(cls) -> "FusionPlan":
        """Small, for shape and sanity; its times mean nothing."""
        return cls(
            num_parameters=200_000,
            num_tasks=(3,),
            more_tasks=(2,),
            sizes=(50_000,),
            size_tasks=2,
            memory_tasks=(3,),
            many_tasks=12,
            many_parameters=20_000,
        )


def run_fusion(plan: FusionPlan, steps: Steps) -> dict[str, Any]:
    """The whole benchmark; see docs/benchmarks.md for the keys."""
    counts = sorted({*plan.num_tasks, *plan.more_tasks})
    steps.plan(num_runs(4, repeats=plan.repeats) * (len(counts) + len(plan.sizes)))
    steps.plan(num_runs(2, repeats=plan.repeats) + max(plan.memory_tasks))
    steps.plan(_MEMORY_STEPS * len(plan.memory_tasks) + plan_steps(plan.many_tasks))
    space = clip_space(plan.num_parameters)
    model = SyntheticModel(space)
    by_tasks = _in_memory(model, counts, repeats=plan.repeats, steps=steps)
    by_size = [_at_size(size, plan, steps) for size in plan.sizes]
    with scratch_folder() as folder:
        on_files, memory = _with_files(model, plan, folder=folder, steps=steps)
    with scratch_folder() as folder:
        many = measure_many_tasks(plan.many_parameters, plan.many_tasks, folder=folder, steps=steps)
    extra = {count: row["peak_extra_bytes"] for count, row in memory.items()}
    model_bytes = 4 * space.flat_size
    return {
        "speedup_vs_textbook": {
            str(count): by_tasks[count]["speedup_vs_textbook"] for count in plan.num_tasks
        },
        "peak_extra_bytes": {str(count): size for count, size in extra.items()},
        "peak_extra_model_sizes": {str(count): size / model_bytes for count, size in extra.items()},
        "peak_extra_spread": max(extra.values()) / max(min(extra.values()), 1) - 1,
        "store_speedup_vs_textbook_and_save": on_files["speedup"],
        "thousand_tasks": many,
        "parameters": space.num_parameters,
        "model_bytes": model_bytes,
        "by_tasks": {str(count): row for count, row in by_tasks.items()},
        "by_parameters": [*by_size, {"parameters": space.num_parameters} | by_tasks[plan.num_tasks[0]]],
        "store": on_files,
        "memory": {str(count): row for count, row in memory.items()},
    }


def _in_memory(
    model: SyntheticModel, counts: Iterable[int], *, repeats: int, steps: Steps
) -> dict[int, dict[str, Any]]:
    """For each number of tasks, the fusion of the last of them."""
    rows, packed = {}, PackedModel.empty(model.space)
    for count in counts:
        for index in range(len(packed.tasks), count - 1):
            packed = packed.fuse(model.delta(index))
        rows[count] = _one_fusion(packed, model.delta(count - 1), repeats=repeats, steps=steps)
    return rows


def _one_fusion(before: PackedModel, delta: Tensor, *, repeats: int, steps: Steps) -> dict[str, Any]:
    space = before.space
    written, tensors = before.textbook(), space.views(delta)
    warm = Buffers.of(space, len(before.tasks) + 1)
    spare = np.zeros_like(before.unified)
    works: dict[str, Callable[[], object]] = {
        "textbook": lambda: textbook.fuse(written, tensors),
        "fold": lambda: before.fuse(delta, warm),
        "fold_into_new_memory": lambda: before.fuse(delta),
        "copy": lambda: np.copyto(spare, before.unified),
    }
    ours, theirs = before.fuse(delta, warm), textbook.fuse(written, tensors)
    checked = check_fusion(before, delta, ours=ours, textbook=theirs)
    del ours, theirs
    timings = interleaved(works, repeats=repeats, steps=steps)
    count = len(before.tasks) + 1
    moved = 3 * 4 + 2 * count / 8  # bytes an entry: two floats in and one out, every bit in and out
    return {
        "floor_s": timings["copy"].median_s * moved / (2 * 4),
        "speedup_vs_textbook": ratio(timings["textbook"], timings["fold"]),
        "tasks": count,
        "task_parameters_per_s": count * space.num_parameters / timings["fold"].median_s,
        "timings": as_dicts(timings),
        "checked": checked,
    }


def _at_size(num_parameters: int, plan: FusionPlan, steps: Steps) -> dict[str, Any]:
    model = SyntheticModel(clip_space(num_parameters))
    before = learned(model.space, [model.delta(index) for index in range(plan.size_tasks - 1)])
    row = _one_fusion(before, model.delta(plan.size_tasks - 1), repeats=plan.repeats, steps=steps)
    return {"parameters": model.space.num_parameters} | row


def _with_files(
    model: SyntheticModel, plan: FusionPlan, *, folder: Path, steps: Steps
) -> tuple[dict[str, Any], dict[int, dict[str, int]]]:
    """CheckpointStore.fold with files: its time at the first number of tasks, its memory at the others."""
    growing = GrowingModel(*_memory_store(model, folder))
    files = CheckpointStore(FileBlobs(folder / "blobs"))
    copy_base(growing.store, files.blobs, growing.base)
    path = folder / "checkpoint.safetensors"
    timed, memory = {}, {}
    wanted = {plan.num_tasks[0], *plan.memory_tasks}
    for index in range(max(wanted)):
        write_flat(path, model.space, model.checkpoint(index))
        if index + 1 in wanted and growing.head:
            parent = growing.head.manifest_digest
            copy_revision(growing.store, files.blobs, parent)
            if index + 1 == plan.num_tasks[0]:
                timed = _store_fold(growing, files, path, repeats=plan.repeats, steps=steps)
            if index + 1 in plan.memory_tasks:
                arguments = {
                    "folder": str(folder / "blobs"),
                    "base": growing.base.digest,
                    "parent": parent,
                    "checkpoint": str(path),
                    "index": index,
                }
                memory[index + 1] = measure_fold(arguments)
                steps.done(_MEMORY_STEPS)
        growing.learn(index, path)
        steps.done()
    return timed, memory


def _memory_store(model: SyntheticModel, folder: Path) -> tuple[CheckpointStore, Any]:
    store = CheckpointStore(MemoryBlobs())
    return store, save_base(store, model, folder)


def _store_fold(
    growing: GrowingModel, files: CheckpointStore, path: Path, *, repeats: int, steps: Steps
) -> dict[str, Any]:
    """A whole fusion from a checkpoint file to durable files, against the textbook's with torch.save."""
    assert growing.head is not None
    manifest = growing.head.manifest
    base, count = growing.base, len(manifest.tasks)
    written = _as_textbook(files, growing)
    saved = path.with_suffix(".pt")
    task = new_task(files, count)

    def fold() -> None:
        files.fold(
            base,
            parent=growing.head.manifest_digest if growing.head else None,
            options=growing.options,
            new_task=task,
            checkpoint=path,
        )

    def fuse_and_save() -> None:
        from safetensors.torch import load_file

        weights = base.space.views(base.flat)
        delta = {name: tensor - weights[name] for name, tensor in load_file(path).items()}
        model = textbook.fuse(written, delta)
        state = {"unified": model.unified, "masks": model.masks, "rescalers": model.rescalers}
        torch.save(state, saved)

    timings: dict[str, Timing] = interleaved(
        {"fold": fold, "textbook_and_torch_save": fuse_and_save}, repeats=repeats, steps=steps
    )
    saved.unlink()
    return {
        "speedup": ratio(timings["textbook_and_torch_save"], timings["fold"]),
        "tasks": count + 1,
        "timings": as_dicts(timings),
    }


def _as_textbook(store: CheckpointStore, growing: GrowingModel) -> textbook.TextbookModel:
    """The head of a growing model as the textbook keeps it."""
    assert growing.head is not None
    manifest, base = growing.head.manifest, growing.base
    space: ParameterSpace = base.space
    bits = [packed_mask(store, task, base).numpy() for task in manifest.tasks]
    masks = [torch.from_numpy(unpack_bits(row, space.flat_size)) for row in bits]
    return textbook.TextbookModel(
        unified=dict(space.views(store.load_unified(base, manifest).flat)),
        masks=[views(space, mask) for mask in masks],
        rescalers=[task.rescaler for task in manifest.tasks],
        norms=[task.l1_norm for task in manifest.tasks],
    )
