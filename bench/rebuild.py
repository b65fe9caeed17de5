"""How fast an expert comes out of packed bits, against adding two arrays of the same size."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import peers, textbook
from bench.checks import check_equal, relative_l2
from bench.cold import FullCheckpoint, check_loaded, measure_cold, num_cold_steps
from bench.live import live_model
from bench.packed import rebuild_into
from bench.steps import Steps
from bench.stores import (
    GrowingModel,
    copy_base,
    copy_revision,
    packed_mask,
    save_base,
    scratch_folder,
)
from bench.synthetic import FULL_SIZE, SyntheticModel, clip_space, views, write_flat
from bench.timing import Timing, as_dicts, interleaved, num_runs, ratio
from store.bases import Base
from store.bits import count_bits, unpack_bits
from store.blobs.files import FileBlobs
from store.blobs.memory import MemoryBlobs
from store.checkpoints import CheckpointStore
from store.manifest import Manifest, TaskEntry
from store.parameters import ParameterSpace

SECONDS_A_TASK = 3  # of preparation, at full size: what the bar counts it as


@dataclass(frozen=True)
class RebuildPlan:
    """What to measure: sizes and repeats.

    Attributes:
        num_tasks: In the store; at least 2, so that there are two experts to switch between.
        sizes: Further numbers of parameters, for the plot.
    """

    num_parameters: int = FULL_SIZE
    num_tasks: int = 8
    repeats: int = 11
    slow_repeats: int = 7
    sizes: tuple[int, ...] = (1_000_000, 5_000_000, 20_000_000, 60_000_000)

    @classmethod
    def quick(cls) -> "RebuildPlan":
        """Small, for shape and sanity; its times mean nothing."""
        return cls(400_000, 2, repeats=7, sizes=(100_000, 200_000))


@dataclass(frozen=True)
class _Prepared:
    """A revision on disk, all of it but the triggers resident."""

    store: CheckpointStore
    base: Base
    manifest: Manifest
    unified: Tensor
    experts: list[tuple[TaskEntry, Tensor]]
    checkpoint: Path
    checkpoint_flat: Tensor

    @property
    def space(self) -> ParameterSpace:
        return self.base.space

    def rebuild(self, which: int, out: Tensor) -> None:
        """The expert of the last task (-1) or of the one before (-2), from memory to memory."""
        entry, mask = self.experts[which]
        rebuild_into(out, base=self.base.flat, unified=self.unified, mask=mask, rescaler=entry.rescaler)

    def expected(self, which: int) -> Tensor:
        """The same expert by plain numpy."""
        entry, mask = self.experts[which]
        out = np.empty(self.space.flat_size, dtype=np.float32)
        peers.numpy_rebuild(
            out,
            base=self.base.flat.numpy(),
            unified=self.unified.numpy(),
            mask=mask.numpy(),
            rescaler=entry.rescaler,
        )
        return torch.from_numpy(out)


def run_rebuild(plan: RebuildPlan, steps: Steps) -> dict[str, Any]:
    """The whole benchmark; see docs/benchmarks.md for the keys."""
    steps.plan(plan.num_tasks * SECONDS_A_TASK)
    steps.plan(num_runs(5, repeats=plan.repeats) + num_cold_steps(plan.slow_repeats))
    steps.plan(num_runs(4, repeats=plan.slow_repeats))
    steps.plan(num_runs(3, repeats=plan.repeats) * len(plan.sizes))
    by_size = [_at_size(size, repeats=plan.repeats, steps=steps) for size in plan.sizes]
    with scratch_folder() as folder:
        prepared = _prepare(plan, folder, steps)
        timings, out = _hot(prepared, repeats=plan.repeats, steps=steps)
        cold = _cold(prepared, out, repeats=plan.slow_repeats, steps=steps)
        slow = _peers(prepared, out, folder=folder, repeats=plan.slow_repeats, steps=steps)
    size = prepared.space.num_parameters
    entry = prepared.manifest.tasks[-1]
    last = {"parameters": size} | _medians(timings, ("copy", "add", "rebuild"))
    return {
        "ratio_to_add": ratio(timings["rebuild"], timings["add"]),
        "switch_ratio_to_add": ratio(timings["switch"], timings["add"]),
        "from_store_ratio_to_add": ratio(timings["from_store"], timings["add"]),
        "cold_speedup_vs_full_load": cold["speedup_vs_full_load"],
        "copy_bytes_per_s": 2 * prepared.base.flat.nbytes / timings["copy"].median_s,
        "parameters": size,
        "tasks": plan.num_tasks,
        "mask_density": entry.bits_set / size,
        "timings": as_dicts(timings),
        "cold": cold,
        "peers": slow,
        "by_parameters": [*by_size, last],
    }


def _prepare(plan: RebuildPlan, folder: Path, steps: Steps) -> _Prepared:
    model = SyntheticModel(clip_space(plan.num_parameters))
    memory = CheckpointStore(MemoryBlobs())
    growing = GrowingModel(memory, save_base(memory, model, folder))
    path = folder / "checkpoint.safetensors"
    for index in range(plan.num_tasks):
        fine_tuned = model.checkpoint(index)
        write_flat(path, model.space, fine_tuned)
        growing.learn(index, path)
        steps.done(SECONDS_A_TASK)
    assert growing.head is not None
    digest = growing.head.manifest_digest
    # Grown in memory, where nothing waits for the disk; measured from files.
    files = CheckpointStore(FileBlobs(folder / "blobs"))
    copy_base(memory, files.blobs, growing.base)
    copy_revision(memory, files.blobs, digest)
    base, manifest = growing.base, files.manifest(digest)
    return _Prepared(
        store=files,
        base=base,
        manifest=manifest,
        unified=files.load_unified(base, manifest).flat,
        experts=[(task, packed_mask(files, task, base)) for task in manifest.tasks[-2:]],
        checkpoint=path,
        checkpoint_flat=fine_tuned,
    )


def _hot(prepared: _Prepared, *, repeats: int, steps: Steps) -> tuple[dict[str, Timing], Tensor]:
    """Everything resident and every buffer warm; returns the last buffer too."""
    base, unified = prepared.base.flat, prepared.unified
    out, live = torch.zeros_like(base), torch.zeros_like(base)
    resident = prepared.store.load_unified(prepared.base, prepared.manifest)
    entry, _ = prepared.experts[-1]
    model = live_model(prepared.space, live)
    turn = [-1]

    def switch() -> None:
        turn[0] = -3 - turn[0]  # -1, -2, -1, ...
        prepared.rebuild(turn[0], live)

    def from_store() -> None:
        prepared.store.rebuild(prepared.base, prepared.manifest, entry.name, unified=resident, out=out)

    works: dict[str, Callable[[], object]] = {
        "copy": lambda: out.copy_(base),
        "add": lambda: torch.add(base, unified, alpha=entry.rescaler, out=out),
        "rebuild": lambda: prepared.rebuild(-1, out),
        "switch": switch,
        "from_store": from_store,
    }
    expected = prepared.expected(-1)
    for name in ("rebuild", "from_store"):
        out.zero_()
        works[name]()
        check_equal(name, out, expected)
    timings = interleaved(works, repeats=repeats, steps=steps)
    flat = torch.zeros_like(base)
    for name, parameter in model.named_parameters():
        prepared.space.views(flat)[name].copy_(parameter)
    check_equal("switch", flat, expected if turn[0] == -1 else prepared.expected(-2))
    return timings, out


def _cold(prepared: _Prepared, out: Tensor, *, repeats: int, steps: Steps) -> dict[str, Any]:
    store, entry = prepared.store, prepared.experts[-1][0]
    assert isinstance(store.blobs, FileBlobs)
    resident = store.load_unified(prepared.base, prepared.manifest)
    live = torch.zeros_like(out)
    full = FullCheckpoint(prepared.checkpoint, live_model(prepared.space, live), prepared.space)
    check_loaded(full, live, prepared.checkpoint_flat)
    return measure_cold(
        lambda: store.rebuild(prepared.base, prepared.manifest, entry.name, unified=resident, out=out),
        trigger=store.blobs.path(entry.mask),
        full=full,
        checkpoint=prepared.checkpoint,
        repeats=repeats,
        steps=steps,
    )


def _peers(prepared: _Prepared, out: Tensor, *, folder: Path, repeats: int, steps: Steps) -> dict[str, Any]:
    """Other ways to the same expert, beside our own in the same turns."""
    entry, mask = prepared.experts[-1]
    space, base = prepared.space, prepared.base.flat
    written = textbook.TextbookModel(
        unified=space.views(prepared.unified),
        masks=[views(space, torch.from_numpy(unpack_bits(mask.numpy(), space.flat_size)))],
        rescalers=[entry.rescaler],
    )
    tensors = space.views(base)
    works: dict[str, Callable[[], object]] = {
        "rebuild": lambda: prepared.rebuild(-1, out),
        "textbook": lambda: textbook.rebuild(tensors, written, 0),
        "numpy_packbits": lambda: peers.numpy_rebuild(
            out.numpy(),
            base=base.numpy(),
            unified=prepared.unified.numpy(),
            mask=mask.numpy(),
            rescaler=entry.rescaler,
        ),
    }
    expected = prepared.expected(-1)
    for name, tensor in textbook.rebuild(tensors, written, 0).items():
        # Where the mask has no bit the textbook adds a zero, which turns -0.0 into 0.0: equal, not bit-equal.
        assert torch.equal(tensor, space.views(expected)[name]), f"the textbook's {name} is another"
    assert count_bits(mask.numpy()) == entry.bits_set
    answer: dict[str, Any] = {}
    if peers.is_installed("deltatensors"):
        answer["deltatensors"] = _add_deltatensors(works, prepared, folder)
    timings = interleaved(works, repeats=repeats, steps=steps)
    for name, timing in timings.items():
        answer[name] = (
            answer.get(name, {}) | timing.to_dict() | {"times_ours": ratio(timing, timings["rebuild"])}
        )
    return answer if "deltatensors" in answer else {**answer, "deltatensors": peers.missing("deltatensors")}


def _add_deltatensors(
    works: dict[str, Callable[[], object]], prepared: _Prepared, folder: Path
) -> dict[str, Any]:
    space, base = prepared.space, prepared.base.flat
    path = folder / "expert.wdelta"
    peers.save_wdelta(path, fine_tuned=space.views(prepared.checkpoint_flat), base=space.views(base))
    arrays = peers.arrays(space.views(base))
    works["deltatensors"] = lambda: peers.load_wdelta(path, arrays)
    loaded = {name: torch.from_numpy(array) for name, array in peers.load_wdelta(path, arrays).items()}
    deltas = space.flatten({spec.name: loaded[spec.name].view(spec.shape) for spec in space.fused}) - base
    error = relative_l2(deltas, prepared.checkpoint_flat - base)
    return {"lossy": True, "delta_relative_l2": error, "size_bytes": path.stat().st_size}


def _at_size(num_parameters: int, *, repeats: int, steps: Steps) -> dict[str, Any]:
    """Copy, add and rebuild at another size, with a mask of random bits."""
    generator = torch.Generator().manual_seed(num_parameters)
    size = -(-num_parameters // 64) * 64
    base, unified = (torch.randn(size, generator=generator) for _ in range(2))
    mask = torch.randint(0, 256, (size // 8,), generator=generator, dtype=torch.uint8)
    out = torch.zeros_like(base)
    works: dict[str, Callable[[], object]] = {
        "copy": lambda: out.copy_(base),
        "add": lambda: torch.add(base, unified, alpha=0.5, out=out),
        "rebuild": lambda: rebuild_into(out, base=base, unified=unified, mask=mask, rescaler=0.5),
    }
    timings = interleaved(works, repeats=repeats, steps=steps)
    return {"parameters": size} | _medians(timings, works)


def _medians(timings: Mapping[str, Timing], names: Iterable[str]) -> dict[str, float]:
    return {f"{name}_s": timings[name].median_s for name in names}
