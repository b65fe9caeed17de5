"""`mini`: small tasks of different domains, those that ship and those built from the package registries."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.suites.contract import OnProgress, Suite, SuiteTask, Tuning, reverse_too
from bench.suites.unpacking import unpacked_archive

SHIPPED = ("animal_shapes", "clipart", "fashion", "icons", "letters")

# Enough to learn each task well in about a minute on two cores (found by trials with the demo base).
TRAINING: dict[str, Any] = {"iterations": 50, "batch_size": 48, "label_smoothing": 0.1}
LEARNING_RATES: dict[Tuning, float] = {"full": 3e-4, "lora": 3e-3}


class MiniSuite(Suite):
    """Silhouettes, clip art, clothing, icons and letters, each a few hundred pictures."""

    name = "mini"
    orders = reverse_too(tuple(sorted(SHIPPED)))

    def load(self, task: str, *, cache: Path, on_progress: OnProgress) -> SuiteTask:
        folder = shipped_folder()
        described = _descriptions(folder)
        if task not in described:
            raise BenchError(
                f"suite 'mini' has no task {task!r}", remedy=f"name one of: {', '.join(self.tasks)}"
            )
        archive = folder / described[task]["archive"]
        images = unpacked_archive(archive, cache / self.name / task, on_progress=on_progress)
        return SuiteTask(task, images, tuple(described[task]["templates"]))

    def training(
        self,
        task: str,  # noqa: ARG002 (all tasks are alike)
        *,
        tuning: Tuning,
        is_few_shot: bool,  # noqa: ARG002 (and as short already as few-shot runs are)
    ) -> dict[str, Any]:
        return {**TRAINING, "learning_rate": LEARNING_RATES[tuning]}


def shipped_folder() -> Path:
    """The folder of the tasks that ship with the `condu` command."""
    return Path(str(resources.files("cli"))) / "demo" / "tasks"


def _descriptions(folder: Path) -> dict[str, Any]:
    try:
        described: dict[str, Any] = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))["tasks"]
    except FileNotFoundError as error:
        raise BenchError(
            f"the shipped tasks are not whole: {error.filename} is missing",
            remedy="install condu again, or check out its repository anew",
        ) from error
    return described
