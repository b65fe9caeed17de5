"""How fast and in how much memory a task is fused, against the method written down with torch."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench import textbook
from bench.allocator import freed_memory_kept
from bench.checks import check_fusion
from bench.fusion_files import MEMORY_STEPS, FileMarks, fuse_with_files
from bench.many_tasks import measure_many_tasks, plan_steps
from bench.packed import Buffers, PackedModel, learned
from bench.steps import Steps
from bench.stores import scratch_folder
from bench.synthetic import SyntheticModel, clip_space
from bench.timing import as_dicts, interleaved, num_runs, ratio
from store.parameters import ParameterSpace


@dataclass(frozen=True)
class FusionPlan:
    """What to measure.

    Attributes:
        num_tasks: Numbers of tasks, the new one included, at which the textbook is the peer.
        more_tasks: Further numbers of tasks, for the plot.
        sizes: Further numbers of parameters, for the plot, at `size_tasks` tasks.
        memory_tasks: Numbers of tasks at which peak memory is measured.
        memory_sizes: Further numbers of parameters at which it is, at the first of those.
        many_tasks: How far one small model of `many_parameters` grows.
    """

    num_parameters: int = 20_000_000
    num_tasks: tuple[int, ...] = (10, 20)
    more_tasks: tuple[int, ...] = (2, 5)
    sizes: tuple[int, ...] = (1_000_000, 5_000_000)
    size_tasks: int = 10
    memory_tasks: tuple[int, ...] = (2, 8, 32)
    memory_sizes: tuple[int, ...] = (5_000_000, 80_000_000)
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
            memory_tasks=(2,),
            memory_sizes=(),
            many_tasks=12,
            many_parameters=20_000,
        )


def run_fusion(plan: FusionPlan, steps: Steps) -> dict[str, Any]:
    """The whole benchmark; see docs/benchmarks.md for the keys."""
    counts = sorted({*plan.num_tasks, *plan.more_tasks})
    runs = num_runs(4, repeats=plan.repeats) + num_runs(2, repeats=plan.repeats, warm_ups=2)
    steps.plan(runs * (len(counts) + len(plan.sizes)))
    steps.plan(num_runs(2, repeats=plan.repeats) + max(*plan.memory_tasks, plan.num_tasks[0]))
    steps.plan(MEMORY_STEPS * (len(plan.memory_tasks) + len(plan.memory_sizes)))
    steps.plan(plan.memory_tasks[0] * len(plan.memory_sizes) + plan_steps(plan.many_tasks))
    space = clip_space(plan.num_parameters)
    model = SyntheticModel(space)
    by_tasks = _in_memory(model, counts, repeats=plan.repeats, steps=steps)
    by_size = [_at_size(size, plan, steps) for size in plan.sizes]
    wanted = FileMarks(timed_at=plan.num_tasks[0], memory_at=plan.memory_tasks)
    on_files, memory = fuse_with_files(model, wanted, repeats=plan.repeats, steps=steps)
    by_memory = [_memory_at_size(size, plan, steps) for size in plan.memory_sizes]
    with scratch_folder() as folder:
        many = measure_many_tasks(plan.many_parameters, plan.many_tasks, folder=folder, steps=steps)
    extra = {count: row["peak_extra_bytes"] for count, row in memory.items()}
    model_bytes = 4 * space.flat_size
    return {
        "speedup_vs_textbook": {
            str(count): by_tasks[count]["speedup_vs_textbook"] for count in plan.num_tasks
        },
        "speedup_in_kept_memory": {
            str(count): by_tasks[count]["speedup_in_kept_memory"] for count in plan.num_tasks
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
        "memory_by_parameters": sorted(
            [*by_memory, _memory_row(model.space, memory, plan.memory_tasks[0])],
            key=lambda row: int(row["parameters"]),
        ),
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
    source, spare = torch.from_numpy(before.unified), torch.zeros(space.flat_size)
    works: dict[str, Callable[[], object]] = {
        "textbook": lambda: textbook.fuse(written, tensors),
        "fold": lambda: before.fuse(delta, warm),
        "fold_into_new_memory": lambda: before.fuse(delta),
        "copy": lambda: spare.copy_(source),
    }
    ours, theirs = before.fuse(delta, warm), textbook.fuse(written, tensors)
    checked = check_fusion(before, delta, ours=ours, textbook=theirs)
    del ours, theirs
    timings = interleaved(works, repeats=repeats, steps=steps)
    with freed_memory_kept() as is_kept:
        pair = {name: works[name] for name in ("textbook", "fold")}
        kept = interleaved(pair, repeats=repeats, steps=steps, warm_ups=2)
    count = len(before.tasks) + 1
    moved = 3 * 4 + 2 * count / 8  # bytes an entry: two floats in and one out, every bit in and out
    return {
        "floor_s": timings["copy"].median_s * moved / (2 * 4),
        "speedup_vs_textbook": ratio(timings["textbook"], timings["fold"]),
        "tasks": count,
        "task_parameters_per_s": count * space.num_parameters / timings["fold"].median_s,
        "timings": as_dicts(timings),
        "speedup_in_kept_memory": ratio(kept["textbook"], kept["fold"]) if is_kept else None,
        "timings_in_kept_memory": as_dicts(kept),
        "checked": checked,
    }


def _at_size(num_parameters: int, plan: FusionPlan, steps: Steps) -> dict[str, Any]:
    model = SyntheticModel(clip_space(num_parameters))
    before = learned(model.space, [model.delta(index) for index in range(plan.size_tasks - 1)])
    row = _one_fusion(before, model.delta(plan.size_tasks - 1), repeats=plan.repeats, steps=steps)
    return {"parameters": model.space.num_parameters} | row


def _memory_at_size(num_parameters: int, plan: FusionPlan, steps: Steps) -> dict[str, int]:
    model = SyntheticModel(clip_space(num_parameters))
    count = plan.memory_tasks[0]
    _, memory = fuse_with_files(model, FileMarks(None, (count,)), repeats=0, steps=steps)
    return _memory_row(model.space, memory, count)


def _memory_row(space: ParameterSpace, memory: Mapping[int, dict[str, int]], count: int) -> dict[str, int]:
    return {"parameters": space.num_parameters, "tasks": count} | memory[count]
