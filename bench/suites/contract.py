"""What a suite is: named tasks of labelled images, the orders they are learned in, how they are trained."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.errors import BenchError
from imagesets import ImageIndex

Tuning = Literal["full", "lora"]

OnProgress = Callable[[str, int, int], None]
"""Called with (what is being done, how much is done, how much there is); may raise to stop."""


@dataclass(frozen=True)
class SuiteTask:
    """One task, its images on this machine's disk.

    Attributes:
        name: As the suite's orders name it.
        images: Both splits; the class names stand as a prompt says them.
        templates: Of the prompts; training uses the first, evaluation all.
    """

    name: str
    images: ImageIndex
    templates: tuple[str, ...]

    def __post_init__(self) -> None:
        for part, refs in (("train on", self.images.train), ("test with", self.images.test)):
            if not refs:
                raise BenchError(
                    f"task {self.name!r} has no images to {part}",
                    remedy="add some, or leave the task out of the order",
                )


class Suite(ABC):
    """Tasks in their orders.

    Attributes:
        name: As `--suite` takes it.
        orders: By the name that `--order` takes, the tasks in the order of learning; all tasks in each.
    """

    name: str
    orders: Mapping[str, tuple[str, ...]]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of all tasks, in the suite's first order."""
        return next(iter(self.orders.values()))

    @abstractmethod
    def load(self, task: str, *, cache: Path, on_progress: OnProgress) -> SuiteTask:
        """The task, its images fetched, unpacked or found.

        Args:
            task: One of `tasks`.
            cache: A folder for what is fetched and unpacked; found again by the next call.
            on_progress: Told how far the fetching and unpacking is.

        Raises:
            BenchError: Something is missing or broken; it is named.
        """

    def fetch(self, task: str, *, cache: Path, on_progress: OnProgress) -> SuiteTask:
        """The task, after all it needs was fetched; where `load` fetches by itself, nothing else than that.

        Raises:
            BenchError: A package or a data set cannot be fetched, or what came is broken.
        """
        return self.load(task, cache=cache, on_progress=on_progress)

    @abstractmethod
    def training(self, task: str, *, tuning: Tuning, is_few_shot: bool) -> dict[str, Any]:
        """What differs from the defaults of TrainingOptions when this task is learned."""

    def check_task(self, task: str) -> None:
        """Nothing, where the suite has this task; BenchError where not."""
        if task not in self.tasks:
            raise BenchError(
                f"suite {self.name!r} has no task {task!r}", remedy=f"name one of: {', '.join(self.tasks)}"
            )


def reverse_too(tasks: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Order I as given, order II its reverse."""
    return {"I": tasks, "II": tasks[::-1]}


def order_of(suite: Suite, order: str) -> tuple[str, ...]:
    """The tasks in the order of that name, or of a file with one task a line (`#` begins a comment).

    Raises:
        BenchError: There is no such order, or the file leaves out, repeats or invents a task; it is named.
    """
    if order in suite.orders:
        return suite.orders[order]
    path = Path(order)
    if not path.is_file():
        raise BenchError(
            f"suite {suite.name!r} has no order {order!r}, and there is no file of that name",
            remedy=f"name one of {', '.join(suite.orders)}, or write a file with one task a line",
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise BenchError(f"the order in {path} is not UTF-8", remedy="save it as plain text") from error
    names = tuple(text for line in lines if (text := line.partition("#")[0].strip()))
    check_order(suite, names, where=str(path))
    return names


def check_order(suite: Suite, names: tuple[str, ...], *, where: str) -> None:
    """Nothing, where these are all the tasks of the suite, each once.

    Raises:
        BenchError: A task is unknown, repeated or left out; it is named, and `where` it stands.
    """
    remedy = f"write each of these once: {', '.join(suite.tasks)}"
    if unknown := [name for name in names if name not in suite.tasks]:
        raise BenchError(f"{where} names {unknown[0]!r}, which suite {suite.name!r} has not", remedy=remedy)
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise BenchError(f"{where} names {repeated[0]!r} more than once", remedy=remedy)
    if missing := [name for name in suite.tasks if name not in names]:
        raise BenchError(f"{where} leaves out {missing[0]!r}", remedy=remedy)
