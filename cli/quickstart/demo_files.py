"""The demo base and the demo tasks that ship with the project."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cli.errors import CommandFailedError


@dataclass(frozen=True)
class DemoTask:
    """A task of real images, with the training options that suit it on two cores."""

    name: str
    archive: Path
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    num_train: int
    training: dict[str, Any]

    @classmethod
    def read(cls, name: str, entry: dict[str, Any], folder: Path) -> Self:
        """The task that an entry of tasks.json describes."""
        return cls(
            name=name,
            archive=folder / entry["archive"],
            classes=tuple(entry["classes"]),
            templates=tuple(entry["templates"]),
            num_train=entry["num_train"],
            training=entry["training"],
        )


@dataclass(frozen=True)
class Demo:
    """A base, the tasks to teach it in their order, and the task that is fine-tuned outside and imported."""

    weights: Path
    config: dict[str, Any]
    trained: tuple[DemoTask, ...]
    imported: DemoTask

    @property
    def tasks(self) -> tuple[DemoTask, ...]:
        """All tasks."""
        return (*self.trained, self.imported)


def read_demo(folder: Path, *, num_trained: int) -> Demo:
    """The demo in `folder` with its first trained tasks; CommandFailedError when it is not whole."""
    try:
        config = json.loads((folder / "base_config.json").read_text())
        entries = json.loads((folder / "tasks" / "tasks.json").read_text())["tasks"]
    except FileNotFoundError as error:
        raise incomplete(folder, str(error)) from error
    tasks = {name: DemoTask.read(name, entry, folder / "tasks") for name, entry in entries.items()}
    trained = tuple(task for name, task in tasks.items() if not entries[name]["import"])
    imported = next(task for name, task in tasks.items() if entries[name]["import"])
    demo = Demo(folder / "base.safetensors", config, trained[:num_trained], imported)
    for file in (demo.weights, *(task.archive for task in demo.tasks)):
        if not file.is_file():
            raise incomplete(folder, f"{file} is missing")
    return demo


def upcast_base(source: Path, target: Path) -> None:
    """Write the half-precision weights in single precision: deltas live in digits that half has not."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(source)
    save_file(
        {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()},
        target,
    )


def incomplete(folder: Path, detail: str) -> CommandFailedError:
    """The demo's files are not all there."""
    return CommandFailedError(
        f"the demo in {folder} is not whole",
        detail=detail,
        remedy="install condu again, or check out its repository anew",
    )
