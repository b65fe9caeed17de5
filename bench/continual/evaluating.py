"""How often a method is right on a task's held-out images, among the task's own classes and among all."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.suites import SuiteTask
from store.manifest import Manifest
from vlm.bases import BaseRef
from vlm.class_weights import Classifier, class_weights
from vlm.experts import Expert
from vlm.features import Batch, batched, image_features
from vlm.prediction import Predictor
from vlm.prediction_options import PredictionOptions
from vlm.preprocessing import Preprocessing
from vlm.prompts import DEFAULT_TEMPLATES
from worker.datasets.pixels import Pictures
from worker.datasets.preparing import PreparedImages


@dataclass(frozen=True)
class Cell:
    """An entry of both matrices: top-1 in percent among the task's own classes, and among all the suite's."""

    own: float
    union: float


@dataclass(frozen=True)
class Lesson:
    """A task of the suite with its images ready to be learned from."""

    task: SuiteTask
    images: PreparedImages
    pictures: Pictures

    @classmethod
    def of(cls, task: SuiteTask, images: PreparedImages, preprocessing: Preprocessing) -> "Lesson":
        """The task with the pictures as that preprocessing leaves them."""
        return cls(task, images, images.pictures(preprocessing, max_pixels=50_000_000))

    @property
    def name(self) -> str:
        """The task's."""
        return self.task.name

    @property
    def classes(self) -> tuple[str, ...]:
        """By class number."""
        return self.images.classes

    @property
    def num_test(self) -> int:
        """Images held out."""
        return len(self.images.test)

    def held_out_batches(self) -> Iterator[Batch]:
        """The images held out."""
        return batched(self.pictures.examples(self.images.test))

    def train_batches(self) -> Iterator[Batch]:
        """The images trained on, not augmented."""
        return batched(self.pictures.examples(self.images.train))


def union_labels(lessons: Sequence[Lesson]) -> tuple[str, ...]:
    """All classes of all tasks; a name that two tasks share is one label."""
    return tuple(dict.fromkeys(name for lesson in lessons for name in lesson.classes))


@torch.inference_mode()
def ask_model(expert: Expert, lessons: Sequence[Lesson], *, union: Sequence[str]) -> list[Cell]:
    """One model's cells; the image features serve both label sets.

    The union is asked under `DEFAULT_TEMPLATES`: templates of the image's own task would give it away.
    """
    everything = _classifier(expert, union, DEFAULT_TEMPLATES)
    place = {label: number for number, label in enumerate(union)}
    cells = []
    for lesson in lessons:
        own = _classifier(expert, lesson.classes, lesson.task.templates)
        shared = torch.tensor([place[name] for name in lesson.classes])
        num_right, num_right_of_union = 0, 0
        for images, numbers in lesson.held_out_batches():
            features = image_features(expert.model, images)
            num_right += _num_right(own.logits(features), numbers)
            num_right_of_union += _num_right(everything.logits(features), shared[numbers])
        cells.append(Cell(100.0 * num_right / lesson.num_test, 100.0 * num_right_of_union / lesson.num_test))
    return cells


def ask_service(
    predictor: Predictor,
    base: BaseRef,
    manifest: Manifest | None,
    *,
    lesson: Lesson,
    options: PredictionOptions,
    union: Sequence[str],
) -> Cell:
    """A task's cell as requests are answered: by the task's expert where one is named, else by routing."""
    asked = [
        replace(options, labels=lesson.classes, templates=lesson.task.templates),
        replace(options, labels=tuple(union), templates=DEFAULT_TEMPLATES),
    ]
    num_right = [0, 0]
    for images, numbers in lesson.held_out_batches():
        truth = [lesson.classes[number] for number in numbers.tolist()]
        answers = predictor.classify_each(base, manifest, list(images), options=asked)
        for place, answered in enumerate(answers):
            num_right[place] += sum(
                answer.predictions[0].label == name for answer, name in zip(answered, truth, strict=True)
            )
    own, all_labels = (100.0 * right / lesson.num_test for right in num_right)
    return Cell(own, all_labels)


def _classifier(expert: Expert, labels: Sequence[str], templates: Sequence[str]) -> Classifier:
    weights = class_weights(expert.model, expert.tokenizer, labels=labels, templates=templates)
    return Classifier.of(expert.model, weights)


def _num_right(votes: Tensor, numbers: Tensor) -> int:
    return int((votes.argmax(dim=1).cpu() == numbers).sum())
