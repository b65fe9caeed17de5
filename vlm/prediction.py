"""Answers, one request at a time: for each picture, labels with probabilities, and who gave them."""

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from store.errors import CorruptBlobError, NotFoundError
from store.manifest import Manifest, TaskEntry
from vlm.answers import ExpertShare, ImageResult
from vlm.bases import BaseRef
from vlm.cache import LeasedCache
from vlm.class_weights import Classifier, ClassifierCache, class_weights
from vlm.errors import (
    ImageRejectedError,
    InvalidLabelsError,
    InvalidOptionsError,
    InvalidPrototypesError,
    NoLabelsError,
)
from vlm.experts import ExpertPool
from vlm.inquiry import ClassifierNeeded, Inquiry, Met, Need, Question
from vlm.prediction_options import PredictionOptions
from vlm.prompts import DEFAULT_TEMPLATES, MAX_LABELS, validate_labels, validate_templates
from vlm.prototypes import PrototypeSet

MAX_PROMPTS = 100_000
"""Labels times templates; each is one pass through the text tower of every expert that answers."""
PROTOTYPE_CACHE_BYTES = 64 * 2**20

R = TypeVar("R")


class Predictor:
    """Answers requests on any base and revision. Thread-safe.

    Args:
        pool: Where the experts come from.
        class_weight_cache_bytes: Bound on the class weights kept.
        max_labels: Most labels of one request.
    """

    def __init__(
        self, pool: ExpertPool, *, class_weight_cache_bytes: int = 256 * 2**20, max_labels: int = MAX_LABELS
    ) -> None:
        self.pool = pool
        self.class_weights = ClassifierCache(max_bytes=class_weight_cache_bytes)
        self._prototypes: LeasedCache[str, Tensor] = LeasedCache(max_bytes=PROTOTYPE_CACHE_BYTES)
        self._max_labels = max_labels

    def classify(
        self,
        base: BaseRef,
        manifest: Manifest | None,
        images: Sequence[Tensor | ImageRejectedError],
        *,
        options: PredictionOptions,
    ) -> list[ImageResult]:
        """One result per picture, in their order; a rejected one gets its error, the others their answers.

        Args:
            base: The model's base.
            manifest: The revision to answer from; None for a model that has learned nothing yet.
            images: As `Preprocessing.load` gives them, or the errors it raised.
            options: How to answer.

        Raises:
            NotFoundError: The revision does not have the task that is named.
            NoLabelsError: Nothing says among which labels to choose.
            InvalidLabelsError: The labels cannot be chosen among.
            InvalidTemplatesError: A template makes no prompt.
            InvalidOptionsError: Nobody would answer.
        """
        return self.classify_each(base, manifest, images, options=[options])[0]

    def classify_each(
        self,
        base: BaseRef,
        manifest: Manifest | None,
        images: Sequence[Tensor | ImageRejectedError],
        *,
        options: Sequence[PredictionOptions],
    ) -> list[list[ImageResult]]:
        """What `classify` gives for each of the options, every picture's features being computed once.

        Args:
            base: As for `classify`, which raises what this does.
            manifest: The same.
            images: The same.
            options: At least one; they may differ in labels, label set, templates and `top_k`.

        Raises:
            ValueError: They differ in who answers, or how.
        """
        return self._run(self.ask(base, manifest, images, options=options).answer())

    def ask(
        self,
        base: BaseRef,
        manifest: Manifest | None,
        images: Sequence[Tensor | ImageRejectedError],
        *,
        options: Sequence[PredictionOptions],
    ) -> Inquiry:
        """The request, checked, with the prototypes that it needs; raises what `classify_each` does."""
        if len({_who_answers(each) for each in options}) != 1:
            raise ValueError("options of one call differ in labels, label_set, templates and top_k alone")
        questions = [self._question(base, manifest, each) for each in options]
        return Inquiry(questions, images, self._prototypes_of(questions[0]))

    def route(
        self,
        base: BaseRef,
        manifest: Manifest | None,
        pictures: Float[Tensor, "N 3 H W"],
        *,
        options: PredictionOptions | None = None,
    ) -> list[tuple[ExpertShare, ...]]:
        """Who would answer for each picture, as `classify` would tell it; of the experts none is asked.

        Args:
            base: The model's base.
            manifest: The revision; None for a model that has learned nothing yet.
            pictures: As `Preprocessing.load` gives them.
            options: How answers are given; by default the released way.

        Raises:
            NotFoundError: The revision does not have the task that is named.
            InvalidOptionsError: Nobody would answer.
        """
        options = options or PredictionOptions()
        tasks = _participants(manifest, options)
        question = Question(base, manifest, tasks, labels=(), templates=(), options=options)
        inquiry = Inquiry([question], list(pictures), self._prototypes_of(question))
        route, scores, _ = self._run(inquiry.route(list(pictures)))
        return [inquiry.shares(route, scores, row) for row in range(len(pictures))]

    @torch.inference_mode()
    def _run(self, steps: Generator[Sequence[Need], Sequence[Met], R]) -> R:
        """Meet the needs one after the other, until the steps end."""
        try:
            needs = next(steps)
            while True:
                needs = steps.send([self._meet(need) for need in needs])
        except StopIteration as end:
            result: R = end.value
            return result

    def _meet(self, need: Need) -> Met:
        if isinstance(need, ClassifierNeeded):
            return self.class_weights.get(need.name, lambda: self._make_classifier(need))
        with self.pool.lease(need.who.base, need.who.manifest, need.who.task) as expert:
            return expert.image_features(torch.stack(list(need.pictures)))

    def _make_classifier(self, need: ClassifierNeeded) -> Classifier:
        with self.pool.lease(need.who.base, need.who.manifest, need.who.task) as expert:
            weights = class_weights(
                expert.model, expert.tokenizer, labels=need.labels, templates=need.templates
            )
            return Classifier.of(expert.model, weights)

    def _question(self, base: BaseRef, manifest: Manifest | None, options: PredictionOptions) -> Question:
        tasks = _participants(manifest, options)
        everything = manifest.tasks if manifest is not None else ()
        labels = self._labels(everything if options.label_set == "union" else tasks, options)
        own = tasks[0].templates if options.task is not None else DEFAULT_TEMPLATES
        templates = validate_templates(own if options.templates is None else options.templates)
        if len(labels) * len(templates) > MAX_PROMPTS:
            raise InvalidLabelsError(
                f"{len(labels)} labels times {len(templates)} templates are more than {MAX_PROMPTS:,} "
                "prompts; give fewer"
            )
        return Question(base, manifest, tasks, labels, templates, options)

    def _labels(self, tasks: Sequence[TaskEntry], options: PredictionOptions) -> tuple[str, ...]:
        if options.labels is not None:
            return validate_labels(options.labels, max_labels=self._max_labels)
        labels = tuple(dict.fromkeys(name for task in tasks for name in task.classes))
        if not labels:
            raise NoLabelsError("the model has learned no task, so it has no labels of its own; give labels")
        return labels

    def _prototypes_of(self, question: Question) -> list[Tensor]:
        if not question.is_routed:
            return []
        return [self._load_prototypes(question.base, task) for task in question.tasks]

    def _load_prototypes(self, base: BaseRef, task: TaskEntry) -> Tensor:
        def make() -> tuple[Tensor, int]:
            content = bytes(self.pool.store.blobs.read(task.prototypes))
            found = hashlib.sha256(content).hexdigest()
            if found != task.prototypes:
                raise CorruptBlobError(
                    f"prototypes of task {task.name!r}", expected=task.prototypes, found=found
                )
            return PrototypeSet.from_bytes(content).vectors, len(content)

        with self._prototypes.lease(task.prototypes, make) as vectors:
            if vectors.shape[1] != base.architecture.embed_dim:
                raise InvalidPrototypesError(
                    f"prototypes of task {task.name!r} have {vectors.shape[1]} dimensions, the base's "
                    f"features {base.architecture.embed_dim}; learn the task again on this base"
                )
            return vectors


def _participants(manifest: Manifest | None, options: PredictionOptions) -> tuple[TaskEntry, ...]:
    """The tasks whose experts may answer."""
    if options.task is not None:
        if manifest is None:
            raise NotFoundError(
                f"task {options.task!r}: the model has learned no task yet; name none to ask the base"
            )
        return (manifest.task(options.task),)
    tasks = manifest.tasks if manifest is not None else ()
    if not tasks and not options.include_base:
        raise InvalidOptionsError(
            "the model has no tasks, so without the base nobody answers; set include_base"
        )
    return tasks


def _who_answers(options: PredictionOptions) -> PredictionOptions:
    """The options without what only says among which labels to choose."""
    return replace(options, labels=None, label_set=None, templates=None, top_k=1)
