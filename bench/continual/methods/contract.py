"""What a method of the protocol can do: learn the next task, and answer for every task."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from bench.continual.evaluating import Cell, Lesson
from bench.continual.stage import Stage
from bench.suites import Tuning


class Method(ABC):
    """A way to learn tasks one after the other.

    After a kill the steps are learned again without being asked about, which costs little because
    fine-tunes are kept.

    Args:
        stage: What it works with.
        tuning: What a task may change.
    """

    def __init__(self, stage: Stage, tuning: Tuning) -> None:
        self.stage = stage
        self.tuning: Tuning = tuning
        self.learned: list[Lesson] = []

    @classmethod
    def work(cls, stage: Stage, step: int) -> int:  # noqa: ARG003 - some need it
        """Forward passes of pictures that `row` will take after that step; an estimate, for the ETA."""
        return sum(lesson.num_test for lesson in stage.lessons)

    @abstractmethod
    def learn(self, lesson: Lesson) -> None:
        """Take the next task in."""

    @abstractmethod
    def row(self) -> list[Cell]:
        """The cells of all tasks, learned or not, in their order."""

    @abstractmethod
    def size_bytes(self) -> int:
        """What must be kept to answer for all tasks so far, the base included where it is needed."""

    def kept_bytes(self) -> int:
        """What must be kept to learn the next task as well."""
        return self.size_bytes()

    def findings(self) -> Mapping[str, Any]:
        """What else is known after the last step, by kind."""
        return {}
