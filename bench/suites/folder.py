"""A suite of the user's own: a folder with a folder or an archive of images for each task."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.errors import BenchError
from bench.suites.contract import OnProgress, Suite, SuiteTask, Tuning, check_order, reverse_too
from bench.suites.unpacking import unpacked_archive
from catalog.training_options import TrainingOptions
from imagesets import ImageIndex, ImagesetError, index_folder, split

DESCRIPTION = "suite.json"
ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
TEMPLATES = ("a photo of a {}.",)

# The draw is the suite's and not a run's, so that runs with several seeds are measured on the same images.
TEST_FRACTION = 0.2
SPLIT_SEED = 42


@dataclass(frozen=True)
class Description:
    """What suite.json says; every part of it may be left out.

    Attributes:
        orders: Tasks by the name of the order.
        templates: Of all tasks, or by task.
        training: By tuning, what differs from the defaults of TrainingOptions.
    """

    orders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    templates: tuple[str, ...] | Mapping[str, tuple[str, ...]] = TEMPLATES
    training: Mapping[str, dict[str, Any]] = field(default_factory=dict)


class FolderSuite(Suite):
    """The tasks in a folder: TASK/ or TASK.tar (.tar.gz, .zip), each in a layout that data sets may have.

    Args:
        folder: Its name is the suite's.

    Raises:
        BenchError: There are no tasks in the folder, or its suite.json is wrong.
    """

    def __init__(self, folder: Path) -> None:
        self.name = folder.resolve().name
        self._sources = _sources(folder)
        self.orders = reverse_too(tuple(sorted(self._sources)))
        self._description = self._described(folder / DESCRIPTION)
        self.orders = {**self.orders, **self._description.orders}

    def load(self, task: str, *, cache: Path, on_progress: OnProgress) -> SuiteTask:
        self.check_task(task)
        source = self._sources[task]
        if source.is_dir():
            images = _indexed(source)
        else:
            images = unpacked_archive(source, cache / "folders" / self.name / task, on_progress=on_progress)
        images = split(images, test_fraction=TEST_FRACTION, seed=SPLIT_SEED)
        templates = self._description.templates
        return SuiteTask(
            task, images, templates if isinstance(templates, tuple) else templates.get(task, TEMPLATES)
        )

    def training(
        self,
        task: str,  # noqa: ARG002 (suite.json speaks of all tasks)
        *,
        tuning: Tuning,
        is_few_shot: bool,  # noqa: ARG002
    ) -> dict[str, Any]:
        return dict(self._description.training.get(tuning, {}))

    def _described(self, path: Path) -> Description:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Description()
        except (ValueError, OSError) as error:
            raise BenchError(f"{path} cannot be read as JSON ({error})", remedy="correct it") from error
        known = tuple(each.name for each in fields(Description))
        if not isinstance(values, dict) or (unknown := sorted(set(values) - set(known))):
            what = f"a part {unknown[0]!r}" if isinstance(values, dict) else "no object"
            raise BenchError(f"{path} has {what}", remedy=f"write an object with {', '.join(known)}")
        return Description(
            orders=self._orders(path, values.get("orders", {})),
            templates=self._templates(path, values.get("templates", list(TEMPLATES))),
            training=_training(path, values.get("training", {})),
        )

    def _orders(self, path: Path, value: Any) -> dict[str, tuple[str, ...]]:
        if not isinstance(value, dict) or not all(_is_texts(names) for names in value.values()):
            raise BenchError(
                f"orders in {path} is no object of lists of tasks", remedy='write {"I": ["TASK", ...]}'
            )
        for order, names in value.items():
            check_order(self, tuple(names), where=f"order {order!r} of {path}")
        return {order: tuple(names) for order, names in value.items()}

    def _templates(self, path: Path, value: Any) -> tuple[str, ...] | dict[str, tuple[str, ...]]:
        if not isinstance(value, dict):
            return _checked_templates(path, value)
        for task in value:
            self.check_task(task)
        return {task: _checked_templates(path, templates) for task, templates in value.items()}


def _sources(folder: Path) -> dict[str, Path]:
    """The folder or archive of each task."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        suffix = next((suffix for suffix in ARCHIVES if path.name.endswith(suffix)), "")
        if path.name.startswith(".") or not (path.is_dir() or suffix):
            continue
        task = path.name if path.is_dir() else path.name.removesuffix(suffix)
        if task in found:
            raise BenchError(
                f"task {task!r} is there twice, as {found[task].name} and as {path.name}",
                remedy=f"leave one of them in {folder}",
            )
        found[task] = path
    if not found:
        raise BenchError(
            f"{folder} holds no tasks",
            remedy="put a folder or an archive (.tar, .tar.gz, .zip) there for each",
        )
    return found


def _indexed(folder: Path) -> ImageIndex:
    try:
        return index_folder(folder)
    except ImagesetError as error:
        raise BenchError(f"{folder}: {error}", remedy="arrange the images as the message says") from error


def _checked_templates(path: Path, value: Any) -> tuple[str, ...]:
    if not _is_texts(value) or not value or any(text.count("{}") != 1 for text in value):
        raise BenchError(
            f"templates in {path} are not sentences with one {{}} each", remedy='write ["a photo of a {}."]'
        )
    return tuple(value)


def _training(path: Path, value: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(value, dict) or not set(value) <= {"full", "lora"}:
        raise BenchError(
            f"training in {path} is not by tuning", remedy='write {"full": {"iterations": 50}, "lora": {...}}'
        )
    for tuning, options in value.items():
        try:
            TrainingOptions.model_validate(options)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in ("training", tuning, *first["loc"]))
            raise BenchError(
                f"{where} in {path}: {first['msg']}", remedy="see docs/api.md for the options"
            ) from error
    return value


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)
