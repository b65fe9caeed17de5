"""Each answer of the service against the offline answer of the revision that it names."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from bench.serving.installation import Published
from vlm.answers import ImageResult
from vlm.bases import BaseRef
from vlm.prediction import Predictor
from vlm.prediction_options import PredictionOptions

LOGIT_TOLERANCE = 1e-3
"""Batches of other sizes round otherwise, by some 1e-5 of a logit; another expert is off by whole logits."""
PROBABILITY_TOLERANCE = 1e-3
WEIGHT_TOLERANCE = 1e-4
SMALLEST_PROBABILITY = 1e-6
"""Below it, float32 leaves too few digits for a logit."""
MAX_EXAMPLES = 5

LabelKind = Literal["own", "foreign", "union"]
ALL_LABELS = 1000
Fault = Literal["status", "revision", "experts", "labels", "logits"]


@dataclass(frozen=True)
class Asked:
    """What a request asked.

    Attributes:
        task: Whose expert; None leaves it to each image.
        kind: Among which labels.
        images: Numbers of photographs.
        revision: The one that it asked for by number.
    """

    task: str | None
    kind: LabelKind
    images: tuple[int, ...]
    revision: int | None = None


@dataclass(frozen=True)
class Told:
    """What came back: the status and body, and the revisions that were the head between asking and answer."""

    status: int
    body: Mapping[str, Any]
    heads: Sequence[int]


class Offline:
    """What the offline predictor answers, computed once for each revision, expert and label set.

    Args:
        predictor: With a pool of its own.
        ref: The base.
        revisions: All that were published, by number.
        pictures: The photographs, preprocessed.
        foreign_labels: What `foreign` means.
    """

    def __init__(
        self,
        predictor: Predictor,
        ref: BaseRef,
        revisions: Mapping[int, Published],
        *,
        pictures: Sequence[Tensor],
        foreign_labels: Sequence[str],
    ) -> None:
        self._predictor, self._ref, self._revisions = predictor, ref, revisions
        self._pictures, self._foreign = list(pictures), tuple(foreign_labels)
        self._known: dict[tuple[int, str | None], dict[LabelKind, list[ImageResult]]] = {}

    def serves(self, number: int, task: str | None) -> bool:
        """Whether that revision can answer for the task."""
        revision = self._revisions.get(number)
        return revision is not None and (
            task is None or any(entry.name == task for entry in revision.manifest.tasks)
        )

    def results(self, number: int, task: str | None, kind: LabelKind) -> list[ImageResult]:
        """One result a photograph, with every label."""
        if (number, task) not in self._known:
            kinds: Sequence[LabelKind] = ("foreign", "union") if task is None else ("own", "foreign")
            options = [self._options(task, each) for each in kinds]
            found = self._predictor.classify_each(
                self._ref, self._revisions[number].manifest, self._pictures, options=options
            )
            self._known[number, task] = dict(zip(kinds, found, strict=True))
        return self._known[number, task][kind]

    def _options(self, task: str | None, kind: LabelKind) -> PredictionOptions:
        return PredictionOptions(
            task=task,
            labels=self._foreign if kind == "foreign" else None,
            label_set="union" if kind == "union" else None,
            top_k=ALL_LABELS,
        )


@dataclass
class Verdicts:
    """What was found: wrong answers by what is wrong with them, and how far right ones are off."""

    checked: int = 0
    refused: int = 0
    wrong: dict[str, int] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    largest_logit_difference: float = 0.0
    revisions_seen: set[int] = field(default_factory=set)

    @property
    def num_wrong(self) -> int:
        """Requests with something wrong in their answer."""
        return sum(self.wrong.values())

    def judge(self, asked: Asked, told: Told, offline: Offline) -> None:
        """Count the answer."""
        self.checked += 1
        if told.status == 404 and not all(offline.serves(head, asked.task) for head in told.heads):
            self.refused += 1  # the task was not there for a part of that time
            return
        found = self._fault(asked, told, offline)
        if found is not None:
            fault, detail = found
            self.wrong[fault] = self.wrong.get(fault, 0) + 1
            if len(self.examples) < MAX_EXAMPLES:
                self.examples.append(f"{fault}: {detail}; {asked}")

    def _fault(self, asked: Asked, told: Told, offline: Offline) -> tuple[Fault, str] | None:
        if told.status != 200:
            return "status", f"{told.status} {told.body}"
        number = told.body["revision"]
        allowed = told.heads if asked.revision is None else [asked.revision]
        if number not in allowed or not offline.serves(number, asked.task):
            return "revision", f"answered from {number}, not from one of {list(allowed)}"
        self.revisions_seen.add(number)
        expected = offline.results(number, asked.task, _kind(asked))
        for image, result in zip(asked.images, told.body["results"], strict=True):
            fault = self._image_fault(result, expected[image])
            if fault is not None:
                return fault
        return None

    def _image_fault(self, result: Mapping[str, Any], expected: ImageResult) -> tuple[Fault, str] | None:
        shares = [(each["task"], each["digest"]) for each in result["experts"]]
        if shares != [(each.task, each.digest) for each in expected.experts] or any(
            abs(each["weight"] - other.weight) > WEIGHT_TOLERANCE
            for each, other in zip(result["experts"], expected.experts, strict=True)
        ):
            return "experts", f"{shares} instead of {expected.experts}"
        found = {each["label"]: each["probability"] for each in result["predictions"]}
        wanted = {each.label: each.probability for each in expected.predictions}
        if found.keys() != wanted.keys():
            return "labels", f"{sorted(found)} instead of {sorted(wanted)}"
        values = list(found.values())
        if values != sorted(values, reverse=True):
            return "labels", f"not the likeliest first: {values}"
        difference = logit_difference(found, wanted)
        if difference > LOGIT_TOLERANCE or any(
            abs(found[label] - wanted[label]) > PROBABILITY_TOLERANCE for label in wanted
        ):
            return "logits", f"off by {difference:.3g}"
        self.largest_logit_difference = max(self.largest_logit_difference, difference)
        return None


def logit_difference(found: Mapping[str, float], wanted: Mapping[str, float]) -> float:
    """The largest between log-probabilities, which are logits up to one constant an image."""
    return max(
        abs(math.log(max(found[label], SMALLEST_PROBABILITY)) - math.log(chance))
        for label, chance in wanted.items()
        if chance > SMALLEST_PROBABILITY
    )


def told_apart(offline: Offline, number: int, tasks: Sequence[str]) -> float:
    """Share of (photograph, pair of experts) in which one's answer would be seen not to be the other's.

    Among the same labels, and by the logits alone, so without the digest that an answer names.
    """
    answers = [
        [
            {each.label: each.probability for each in result.predictions}
            for result in offline.results(number, task, "foreign")
        ]
        for task in tasks
    ]
    seen = [
        logit_difference(first, second) > LOGIT_TOLERANCE
        for place, mine in enumerate(answers)
        for others in answers[place + 1 :]
        for first, second in zip(mine, others, strict=True)
    ]
    return sum(seen) / len(seen)


def _kind(asked: Asked) -> LabelKind:
    return "union" if asked.task is None and asked.kind == "own" else asked.kind
