"""A training process: `python -m worker.training SPEC.json PARENT_PID RANK MEETING` says in JSON how it goes.

Events, a line each: {"event": "progress", step, steps, loss, images_per_s, eta_s}; at last one of
{"event": "done"}, {"event": "stopped"} (after SIGTERM, its state saved) and {"event": "failed", title,
detail, remedy}. Where several train together, the first speaks for all, but one that fails says so itself.
"""

import ctypes
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from catalog.job_queue import JobFailedError
from worker.datasets.preparing import PreparedImages
from worker.failures import told_to_the_user
from worker.files import read_json
from worker.training.loop import Task, train
from worker.training.spec import TrainingSpec
from worker.training.team import Team

PR_SET_PDEATHSIG = 1


def main(spec_path: Path, parent: int, *, rank: int, meeting: Path) -> None:
    """Train as the spec says, and say so."""
    die_with_parent(parent)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    spec = TrainingSpec.read(spec_path)
    torch.set_num_threads(_num_threads(spec))
    try:
        with told_to_the_user():
            team = Team.join(meeting, rank=rank, size=spec.processes, device=spec.device)
            is_done = train(
                spec,
                _task(spec),
                report=lambda progress: tell("progress", progress) if team.is_first else None,
                is_stopping=stopping.is_set,
                team=team,
            )
            team.leave()
    except JobFailedError as error:
        tell("failed", {"title": error.title, "detail": error.detail, "remedy": error.remedy})
    else:
        if team.is_first:
            tell("done" if is_done else "stopped", {})


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent ends, however it ends."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it ended before the kernel was asked
        raise SystemExit(1)


def tell(event: str, values: Mapping[str, Any]) -> None:
    """One line on stdout, at once."""
    sys.stdout.write(json.dumps({"event": event, **values}) + "\n")
    sys.stdout.flush()


def _num_threads(spec: TrainingSpec) -> int:
    """As many as the settings say; else torch's own choice, shared among the processes of a CPU."""
    if spec.num_threads is not None:
        return spec.num_threads
    return max(1, torch.get_num_threads() // spec.processes)


def _task(spec: TrainingSpec) -> Task:
    images = PreparedImages.from_dict(read_json(spec.images))
    return Task(images.pictures(spec.preprocessing, max_pixels=spec.max_pixels), images.train, images.classes)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), rank=int(sys.argv[3]), meeting=Path(sys.argv[4]))
