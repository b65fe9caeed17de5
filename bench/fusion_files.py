"""Fusions from a checkpoint file to a durable revision: what they take in time and in memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench import textbook
from bench.memory import measure_fold
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
from bench.synthetic import SyntheticModel, views, write_flat
from bench.timing import Timing, as_dicts, interleaved, ratio
from store.bits import unpack_bits
from store.blobs.files import FileBlobs
from store.blobs.memory import MemoryBlobs
from store.checkpoints import CheckpointStore
from store.parameters import ParameterSpace

MEMORY_STEPS = 6  # a fresh process takes about as long as so many runs


@dataclass(frozen=True)
class FileMarks:
    """At which numbers of tasks, the new one included, time and peak memory are measured; all at least 2."""

    timed_at: int | None
    memory_at: tuple[int, ...]


def fuse_with_files(
    model: SyntheticModel, marks: FileMarks, *, repeats: int, steps: Steps
) -> tuple[dict[str, Any], dict[int, dict[str, int]]]:
    """CheckpointStore.fold with every blob a file: its times, and its memory by number of tasks.

    The model grows in memory, where nothing waits for the disk, and is copied to files where it is measured.
    """
    timed: dict[str, Any] = {}
    memory: dict[int, dict[str, int]] = {}
    with scratch_folder() as folder:
        store = CheckpointStore(MemoryBlobs())
        growing = GrowingModel(store, save_base(store, model, folder))
        files = CheckpointStore(FileBlobs(folder / "blobs"))
        copy_base(store, files.blobs, growing.base)
        path = folder / "checkpoint.safetensors"
        for count in range(1, max(marks.timed_at or 0, *marks.memory_at) + 1):
            write_flat(path, model.space, model.checkpoint(count - 1))
            if growing.head and count in {marks.timed_at, *marks.memory_at}:
                copy_revision(store, files.blobs, growing.head.manifest_digest)
            if count == marks.timed_at:
                timed = _store_fold(growing, files, path, repeats=repeats, steps=steps)
            if count in marks.memory_at:
                memory[count] = _memory(growing, path)
                steps.done(MEMORY_STEPS)
            growing.learn(count - 1, path)
            steps.done()
    return timed, memory


def _memory(growing: GrowingModel, path: Path) -> dict[str, int]:
    assert growing.head is not None
    return measure_fold(
        {
            "folder": str(path.with_name("blobs")),
            "base": growing.base.digest,
            "parent": growing.head.manifest_digest,
            "checkpoint": str(path),
            "index": len(growing.head.manifest.tasks),
        }
    )


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
