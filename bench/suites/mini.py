"""`mini`: eight small tasks of different domains: five ship, three are built from package registries."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.suites import digits, flags, solar_cells
from bench.suites.building import TaskImage, write_archive
from bench.suites.contract import OnProgress, Suite, SuiteTask, Tuning, reverse_too
from bench.suites.packages import Package, PackageCache
from bench.suites.unpacking import unpacked_archive


@dataclass(frozen=True)
class Recipe:
    """How a task is built from packages.

    Attributes:
        build: Its pictures, chosen and drawn the same at every run.
        templates: Of its prompts.
        version: Raised by whoever changes what `build` gives, so that no cache serves the old pictures.
    """

    build: Callable[[PackageCache], list[TaskImage]]
    templates: tuple[str, ...]
    version: int = 1


SHIPPED = ("animal_shapes", "clipart", "fashion", "icons", "letters")
BUILT = {
    "flags": Recipe(flags.flags, flags.TEMPLATES),
    "mnist": Recipe(digits.mnist, digits.TEMPLATES),
    "solar_cells": Recipe(solar_cells.solar_cells, solar_cells.TEMPLATES),
}

# Enough to learn each task well in about a minute on two cores (found by trials with the demo base).
TRAINING: dict[str, Any] = {"iterations": 50, "batch_size": 48, "label_smoothing": 0.1}
LEARNING_RATES: dict[Tuning, float] = {"full": 3e-4, "lora": 1e-2}


class MiniSuite(Suite):
    """Silhouettes, clip art, clothes, flags, icons, letters, digits, solar cells: hundreds of each."""

    name = "mini"
    orders = reverse_too(tuple(sorted((*SHIPPED, *BUILT))))

    def load(self, task: str, *, cache: Path, on_progress: OnProgress) -> SuiteTask:
        self.check_task(task)
        if task in BUILT:
            archive, templates = _built_archive(task, cache, on_progress=on_progress), BUILT[task].templates
        else:
            archive, templates = _shipped_archive(task)
        images = unpacked_archive(archive, cache / self.name / task, on_progress=on_progress)
        return SuiteTask(task, images, templates)

    def training(
        self,
        task: str,  # noqa: ARG002 (all tasks are alike)
        *,
        tuning: Tuning,
        is_few_shot: bool,  # noqa: ARG002 (and as short already as few-shot runs are)
    ) -> dict[str, Any]:
        return {**TRAINING, "learning_rate": LEARNING_RATES[tuning]}


def _shipped_archive(task: str) -> tuple[Path, tuple[str, ...]]:
    """The archive and the templates of a task that ships with the `condu` command."""
    folder = Path(str(resources.files("cli"))) / "demo" / "tasks"
    try:
        described = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))["tasks"][task]
    except FileNotFoundError as error:
        raise BenchError(
            f"the shipped tasks are not whole: {error.filename} is missing",
            remedy="install condu again, or check out its repository anew",
        ) from error
    return folder / described["archive"], tuple(described["templates"])


def _built_archive(task: str, cache: Path, *, on_progress: OnProgress) -> Path:
    """The archive of a task's pictures, built when the cache has it not."""
    recipe = BUILT[task]
    archive = cache / MiniSuite.name / f"{task}-{recipe.version}.tar"
    if archive.exists():
        return archive

    def on_fetch(package: Package) -> None:
        on_progress(f"fetch {package.title}", 0, 1)

    images = recipe.build(PackageCache(cache / "packages", on_fetch=on_fetch))
    part = archive.with_suffix(".part")
    write_archive(part, images, on_image=lambda done, total: on_progress(f"build {task}", done, total))
    part.replace(archive)
    return archive
