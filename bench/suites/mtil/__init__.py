"""`mtil`: the eleven data sets of the multi-domain task incremental learning benchmark."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bench.errors import BenchError
from bench.suites.contract import OnProgress, Suite, SuiteTask, Tuning
from bench.suites.mtil.arrays import UNPACKERS
from bench.suites.mtil.facts import (
    FEW_SHOT_ITERATIONS,
    LEARNING_RATES,
    ORDER_I,
    ORDER_II,
    TEMPLATES,
    WARMUP_ITERATIONS,
)
from bench.suites.mtil.files import BY_HAND, Files
from bench.suites.mtil.layouts import READERS


class MtilSuite(Suite):
    """Aircraft, objects, textures, satellite pictures, flowers, food, digits, pets, cars, scenes.

    Args:
        data_folder: Of the data sets, each in the layout that torchvision gives it.
    """

    name = "mtil"
    orders: Mapping[str, tuple[str, ...]] = MappingProxyType({"I": ORDER_I, "II": ORDER_II})

    def __init__(self, data_folder: Path) -> None:
        self._data_folder = data_folder

    def load(self, task: str, *, cache: Path, on_progress: OnProgress) -> SuiteTask:
        self.check_task(task)
        files = Files(task, self._data_folder)
        if task in UNPACKERS:
            images = UNPACKERS[task](files, cache=cache / self.name / task, on_progress=on_progress)
        else:
            images = READERS[task](files)
        return SuiteTask(task, images, TEMPLATES[task])

    def fetch(self, task: str, *, cache: Path, on_progress: OnProgress) -> SuiteTask:
        try:
            return self.load(task, cache=cache, on_progress=on_progress)
        except BenchError:
            if task in BY_HAND or task not in self.tasks:
                raise
        on_progress(f"download {task}", 0, 1)
        _download(task, self._data_folder)
        return self.load(task, cache=cache, on_progress=on_progress)

    def training(self, task: str, *, tuning: Tuning, is_few_shot: bool) -> dict[str, Any]:
        self.check_task(task)
        rate = {"learning_rate": LEARNING_RATES[tuning, is_few_shot][task]}
        if not is_few_shot:
            return rate
        return {**rate, "iterations": FEW_SHOT_ITERATIONS, "warmup_iterations": WARMUP_ITERATIONS}


def _download(task: str, data_folder: Path) -> None:
    """Have torchvision fetch the data set, check it, and put it where `Files` looks for it."""
    from torchvision import datasets

    data_folder.mkdir(parents=True, exist_ok=True)
    of_task: dict[str, Callable[..., Any]] = {
        "aircraft": datasets.FGVCAircraft,
        "caltech101": datasets.Caltech101,
        "cifar100": datasets.CIFAR100,
        "dtd": datasets.DTD,
        "eurosat": datasets.EuroSAT,
        "flowers": datasets.Flowers102,
        "food": datasets.Food101,
        "mnist": datasets.MNIST,
        "oxford_pet": datasets.OxfordIIITPet,
        "sun397": datasets.SUN397,
    }
    try:
        of_task[task](str(data_folder), download=True)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise BenchError(
            f"torchvision could not fetch data set {task!r}: {error}",
            remedy=f"put it into {data_folder} by hand, as docs/suites.md shows",
        ) from error
