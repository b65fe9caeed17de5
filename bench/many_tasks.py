"""A model that learns a thousand tasks: what each one costs in time and in bytes read and written."""

import time
from pathlib import Path
from typing import Any

from bench.counting import CountingBlobs
from bench.steps import Steps
from bench.stores import GrowingModel, copy_base, copy_revision, new_task, save_base
from bench.synthetic import SyntheticModel, clip_space, write_flat
from store.blobs.files import FileBlobs
from store.blobs.memory import MemoryBlobs
from store.checkpoints import CheckpointStore

MARKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
NUM_CLASSES = 2
TASKS_A_STEP = 10


def plan_steps(num_tasks: int) -> int:
    """How many steps `measure_many_tasks` takes."""
    return num_tasks // TASKS_A_STEP + len(_marks(num_tasks))


def measure_many_tasks(num_parameters: int, num_tasks: int, *, folder: Path, steps: Steps) -> dict[str, Any]:
    """Fuse task after task into one model; at some of them, fuse the same task from and to files as well.

    The model grows in memory: on disk each of its half a million masks would wait for two flushes. The bytes
    are the same either way.
    """
    model = SyntheticModel(clip_space(num_parameters))
    blobs = CountingBlobs(MemoryBlobs())
    growing = GrowingModel(CheckpointStore(blobs), save_base(CheckpointStore(blobs), model, folder))
    path = folder / "many.safetensors"
    rows, marks = [], _marks(num_tasks)
    for index in range(num_tasks):
        write_flat(path, model.space, model.checkpoint(index))
        is_marked = index + 1 in marks
        on_files = _on_files(growing, index, path) if is_marked else 0.0
        blobs.reset()
        started = time.perf_counter()
        growing.learn(index, path, NUM_CLASSES)
        taken = time.perf_counter() - started
        if is_marked:
            rows.append(
                {
                    "tasks": index + 1,
                    "fold_s": on_files,
                    "fold_in_memory_s": taken,
                    "bytes_read": blobs.bytes_read + path.stat().st_size,
                    "bytes_written": blobs.bytes_written,
                    "blobs_written": blobs.blobs_written,
                }
            )
        steps.done(int(is_marked) + int((index + 1) % TASKS_A_STEP == 0))
    return {"parameters": model.space.num_parameters, "tasks": num_tasks, "by_tasks": rows}


def _marks(num_tasks: int) -> list[int]:
    return sorted({mark for mark in MARKS if mark < num_tasks} | {num_tasks})


def _on_files(growing: GrowingModel, index: int, path: Path) -> float:
    """Seconds of the next fold where every blob is a file, flushed to disk."""
    store = CheckpointStore(FileBlobs(path.with_name(f"files-{index}")))
    copy_base(growing.store, store.blobs, growing.base)
    parent = growing.head.manifest_digest if growing.head else None
    if parent:
        copy_revision(growing.store, store.blobs, parent)
    task = new_task(store, index, NUM_CLASSES)
    started = time.perf_counter()
    outcome = store.fold(growing.base, parent=parent, options=growing.options, new_task=task, checkpoint=path)
    taken = time.perf_counter() - started
    assert len(outcome.tasks) == index + 1
    return taken
