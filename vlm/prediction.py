"""Answers: for each picture, labels with probabilities, and who gave them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from store.errors import CorruptBlobError, NotFoundError
from store.manifest import Manifest, TaskEntry
from vlm.bases import BaseRef
from vlm.cache import LeasedCache
from vlm.class_weights import ClassWeightCache
from vlm.errors import (
    ImageRejectedError,
    InvalidLabelsError,
    InvalidOptionsError,
    InvalidPrototypesError,
    NoLabelsError,
)
from vlm.experts import ExpertPool
from vlm.features import image_features, logits
from vlm.prediction_options import PredictionOptions
from vlm.prompts import DEFAULT_TEMPLATES, MAX_LABELS, validate_labels, validate_templates
from vlm.prototypes import PrototypeSet
from vlm.routing import Route, choose, similarities

MAX_PROMPTS = 100_000
"""Labels times templates; each is one pass through the text tower of every expert that answers."""
PROTOTYPE_CACHE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Prediction:
    """A label and how likely it is among the labels asked for."""

    label: str
    probability: float


@dataclass(frozen=True)
class ExpertShare:
    """One participant of an answer.

    Attributes:
        task: None for the base.
        weight: Its share; an answer's shares sum to 1.
        digest: Of its weights.
        similarity: s_i where the picture chose its experts; None for the base and for a task that was named.
    """

    task: str | None
    weight: float
    digest: str
    similarity: float | None = None


@dataclass(frozen=True)
class ImageResult:
    """The answer for one picture: the likeliest labels first and who took part, or why there is none."""

    predictions: tuple[Prediction, ...] = ()
    experts: tuple[ExpertShare, ...] = ()
    error: ImageRejectedError | None = None


@dataclass(frozen=True)
class _Question:
    """What all pictures of a request have in common, checked.

    Column 0 of a route is the base, column 1 + i is tasks[i].
    """

    base: BaseRef
    manifest: Manifest | None
    tasks: tuple[TaskEntry, ...]
    labels: tuple[str, ...]
    templates: tuple[str, ...]
    options: PredictionOptions

    def column_task(self, column: int) -> str | None:
        return None if column == 0 else self.tasks[column - 1].name

    @cached_property
    def column_digests(self) -> tuple[str, ...]:
        experts = (task.name for task in self.tasks)
        known = self.manifest
        return (self.base.digest, *(known.expert_digest(name) for name in experts if known is not None))


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
        self.class_weights = ClassWeightCache(max_bytes=class_weight_cache_bytes)
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
        if len({_who_answers(each) for each in options}) != 1:
            raise ValueError("options of one call differ in labels, label_set, templates and top_k alone")
        questions = [self._question(base, manifest, each) for each in options]
        pictures = [image for image in images if isinstance(image, Tensor)]
        answers = self._answers(questions, torch.stack(pictures)) if pictures else [[] for _ in questions]
        return [
            [next(found) if isinstance(image, Tensor) else ImageResult(error=image) for image in images]
            for found in map(iter, answers)
        ]

    @torch.inference_mode()
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
        question = _Question(base, manifest, tasks, labels=(), templates=(), options=options)
        scores, _ = self._scores(question, pictures)
        route = _route(question, scores, len(pictures))
        return [_shares(question, route, scores=scores, row=row) for row in range(len(pictures))]

    def _question(self, base: BaseRef, manifest: Manifest | None, options: PredictionOptions) -> _Question:
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
        return _Question(base, manifest, tasks, labels, templates, options)

    def _labels(self, tasks: Sequence[TaskEntry], options: PredictionOptions) -> tuple[str, ...]:
        if options.labels is not None:
            return validate_labels(options.labels, max_labels=self._max_labels)
        labels = tuple(dict.fromkeys(name for task in tasks for name in task.classes))
        if not labels:
            raise NoLabelsError("the model has learned no task, so it has no labels of its own; give labels")
        return labels

    @torch.inference_mode()
    def _answers(
        self, questions: Sequence[_Question], pictures: Float[Tensor, "N 3 H W"]
    ) -> list[list[ImageResult]]:
        scores, base_features = self._scores(questions[0], pictures)
        route = _route(questions[0], scores, len(pictures))
        combined = [torch.zeros(len(pictures), len(question.labels)) for question in questions]
        for column in range(route.chosen.shape[1]):
            rows = route.chosen[:, column].nonzero().squeeze(1)
            if len(rows) > 0:
                known = base_features[rows] if column == 0 and base_features is not None else None
                votes = self._votes(questions, column, pictures=pictures[rows], features=known)
                for total, found in zip(combined, votes, strict=True):
                    total.index_add_(0, rows, route.weights[rows, column, None] * found)
        return [
            _results(question, route, scores=scores, combined=total)
            for question, total in zip(questions, combined, strict=True)
        ]

    def _scores(self, question: _Question, pictures: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """s_i of every picture and task with the base's features, or None where nothing has to be chosen."""
        if question.options.task is not None or question.options.k == 0 or not question.tasks:
            return None, None
        prototypes = [self._load_prototypes(question.base, task) for task in question.tasks]
        with self.pool.lease(question.base, question.manifest, None) as base:
            features = image_features(base.model, pictures)
        return similarities(features.cpu(), prototypes), features

    def _votes(
        self, questions: Sequence[_Question], column: int, *, pictures: Tensor, features: Tensor | None
    ) -> list[Tensor]:
        """One participant's logits (or probabilities), a question each: both towers are its own."""
        asked = questions[0]
        votes = []
        with self.pool.lease(asked.base, asked.manifest, asked.column_task(column)) as expert:
            features = image_features(expert.model, pictures) if features is None else features
            for question in questions:
                weights = self.class_weights.get(expert, labels=question.labels, templates=question.templates)
                found = logits(expert.model, features, weights).cpu()
                votes.append(found if asked.options.space == "logits" else found.softmax(dim=1))
        return votes

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


def _route(question: _Question, scores: Tensor | None, num_images: int) -> Route:
    if scores is not None:
        options = question.options
        return choose(
            scores,
            k=options.k,
            include_base=options.include_base,
            weighting=options.weighting,
            temperature=options.temperature,
        )
    alone = torch.zeros(num_images, 1 + len(question.tasks), dtype=torch.bool)
    alone[:, 0 if question.options.task is None else 1] = True
    return Route(alone, alone.float())


def _results(
    question: _Question, route: Route, *, scores: Tensor | None, combined: Tensor
) -> list[ImageResult]:
    chances = combined.softmax(dim=1) if question.options.space == "logits" else combined
    sorted_chances, order = chances.sort(dim=1, descending=True, stable=True)
    top = min(question.options.top_k, len(question.labels))
    results = []
    for row in range(len(chances)):
        values, labels = sorted_chances[row, :top].tolist(), order[row, :top].tolist()
        predictions = [
            Prediction(question.labels[at], value) for at, value in zip(labels, values, strict=True)
        ]
        shares = _shares(question, route, scores=scores, row=row)
        results.append(ImageResult(tuple(predictions), shares))
    return results


def _shares(question: _Question, route: Route, *, scores: Tensor | None, row: int) -> tuple[ExpertShare, ...]:
    """Who takes part in one picture's answer: the base first, then the experts, the nearest first."""
    shares = [
        ExpertShare(
            task=question.column_task(column),
            weight=float(route.weights[row, column]),
            digest=question.column_digests[column],
            similarity=float(scores[row, column - 1]) if scores is not None and column > 0 else None,
        )
        for column in route.chosen[row].nonzero().squeeze(1).tolist()
    ]
    return tuple(sorted(shares, key=lambda share: (share.task is not None, -(share.similarity or 0.0))))
