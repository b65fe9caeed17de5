"""What a request asks, and the steps to its answer: who takes part, what is needed of each, how votes add up.

The steps are written once, as a generator that yields what it needs of the models and is sent what came of
it. Whoever drives it decides how: `vlm.prediction` meets the needs one after the other, the serving engine
those of all its callers together.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from store.manifest import Manifest, TaskEntry
from vlm.answers import ExpertShare, ImageResult, Prediction
from vlm.bases import BaseRef
from vlm.class_weights import Classifier, ClassifierName, digest_choices
from vlm.errors import ImageRejectedError
from vlm.prediction_options import PredictionOptions
from vlm.routing import Route, choose, similarities


@dataclass(frozen=True)
class Participant:
    """One who may take part in an answer: a task's expert in a revision, or the base (`task` None)."""

    base: BaseRef
    manifest: Manifest | None
    task: str | None

    @property
    def digest(self) -> str:
        """Of its weights; costs no look at them."""
        if self.task is None or self.manifest is None:
            return self.base.digest
        return self.manifest.expert_digest(self.task)

    @property
    def name(self) -> tuple[str, str]:
        """Digests of architecture and weights: equal names are one function."""
        return self.base.architecture.digest, self.digest


@dataclass(frozen=True)
class FeaturesNeeded:
    """A participant's image features of some pictures, one row each."""

    who: Participant
    pictures: Sequence[Float[Tensor, "3 H W"]]


@dataclass(frozen=True)
class ClassifierNeeded:
    """A participant's classifier for labels under templates."""

    who: Participant
    labels: tuple[str, ...]
    templates: tuple[str, ...]
    choices: str

    @property
    def name(self) -> ClassifierName:
        """What the classifier depends on."""
        return ClassifierName(*self.who.name, self.choices)


Need = FeaturesNeeded | ClassifierNeeded
"""What only a model can give."""
Met = Tensor | Classifier
"""What came of it: features for FeaturesNeeded, a classifier for ClassifierNeeded."""
Steps = Generator[Sequence[Need], Sequence[Met], list[list[ImageResult]]]
"""Needs out, as many Mets of the same order in; results per question and image at the end."""


@dataclass(frozen=True)
class Question:
    """What all pictures of a request have in common, checked.

    Column 0 of a route is the base, column 1 + i is tasks[i].
    """

    base: BaseRef
    manifest: Manifest | None
    tasks: tuple[TaskEntry, ...]
    labels: tuple[str, ...]
    templates: tuple[str, ...]
    options: PredictionOptions

    @property
    def is_routed(self) -> bool:
        """Whether each picture chooses its experts."""
        return self.options.task is None and self.options.k > 0 and bool(self.tasks)

    @cached_property
    def choices(self) -> str:
        """Digest of what is to be chosen among, and how it is put."""
        return digest_choices(self.labels, self.templates)

    def participant(self, column: int) -> Participant:
        """Who stands in a column of a route."""
        return Participant(self.base, self.manifest, None if column == 0 else self.tasks[column - 1].name)


@dataclass(frozen=True)
class Inquiry:
    """A request that can be answered.

    Attributes:
        questions: At least one; they differ in labels and templates, not in who answers.
        images: Pictures to answer for, and errors of those that are none.
        prototypes: Of every task of the questions, where pictures choose their experts; else empty.
    """

    questions: Sequence[Question]
    images: Sequence[Float[Tensor, "3 H W"] | ImageRejectedError]
    prototypes: Sequence[Float[Tensor, "_ D"]]

    def answer(self) -> Steps:
        """The steps to the results, one list a question with one result an image in their order.

        They are to be run in inference mode.
        """
        pictures = [image for image in self.images if isinstance(image, Tensor)]
        found: Sequence[list[ImageResult]] = [[] for _ in self.questions]
        if pictures:
            found = yield from self._answers(pictures)
        return [
            [next(rest) if isinstance(image, Tensor) else ImageResult(error=image) for image in self.images]
            for rest in map(iter, found)
        ]

    def route(
        self, pictures: Sequence[Tensor]
    ) -> Generator[Sequence[Need], Sequence[Met], tuple[Route, Tensor | None, Tensor | None]]:
        """Who takes part for each picture; with the scores s_i and the base's features where they chose."""
        asked = self.questions[0]
        if not asked.is_routed:
            alone = torch.zeros(len(pictures), 1 + len(asked.tasks), dtype=torch.bool)
            alone[:, 0 if asked.options.task is None else 1] = True
            return Route(alone, alone.float()), None, None
        (features,) = yield [FeaturesNeeded(asked.participant(0), pictures)]
        assert isinstance(features, Tensor)  # noqa: S101 - a Met answers its Need
        scores = similarities(features.cpu(), self.prototypes)
        options = asked.options
        route = choose(
            scores,
            k=options.k,
            include_base=options.include_base,
            weighting=options.weighting,
            temperature=options.temperature,
        )
        return route, scores, features

    def shares(self, route: Route, scores: Tensor | None, row: int) -> tuple[ExpertShare, ...]:
        """Who takes part in one picture's answer: the base first, then the experts, the nearest first."""
        shares = []
        for column in route.chosen[row].nonzero().squeeze(1).tolist():
            who = self.questions[0].participant(column)
            similarity = float(scores[row, column - 1]) if scores is not None and column > 0 else None
            shares.append(ExpertShare(who.task, float(route.weights[row, column]), who.digest, similarity))
        return tuple(sorted(shares, key=lambda share: (share.task is not None, -(share.similarity or 0.0))))

    def _answers(
        self, pictures: Sequence[Tensor]
    ) -> Generator[Sequence[Need], Sequence[Met], list[list[ImageResult]]]:
        route, scores, base_features = yield from self.route(pictures)
        columns = route.chosen.any(dim=0).nonzero().squeeze(1).tolist()
        rows = {column: route.chosen[:, column].nonzero().squeeze(1) for column in columns}
        needs: list[Need] = []
        for column in columns:
            who = self.questions[0].participant(column)
            if column > 0 or base_features is None:
                needs.append(FeaturesNeeded(who, [pictures[row] for row in rows[column].tolist()]))
            needs += [
                ClassifierNeeded(who, each.labels, each.templates, each.choices) for each in self.questions
            ]
        met = iter((yield needs))
        totals = [torch.zeros(len(pictures), len(question.labels)) for question in self.questions]
        for column in columns:
            known = base_features[rows[column]] if column == 0 and base_features is not None else next(met)
            for total in totals:
                classifier = next(met)
                assert isinstance(classifier, Classifier)  # noqa: S101 - a Met answers its Need
                assert isinstance(known, Tensor)  # noqa: S101 - the same
                vote = self._vote(classifier, known)
                total.index_add_(0, rows[column], route.weights[rows[column], column, None] * vote)
        return [
            self._results(question, route, scores=scores, total=total)
            for question, total in zip(self.questions, totals, strict=True)
        ]

    def _vote(self, classifier: Classifier, features: Tensor) -> Tensor:
        found = classifier.logits(features).cpu()
        return found if self.questions[0].options.space == "logits" else found.softmax(dim=1)

    def _results(
        self, question: Question, route: Route, *, scores: Tensor | None, total: Tensor
    ) -> list[ImageResult]:
        chances = total.softmax(dim=1) if question.options.space == "logits" else total
        sorted_chances, order = chances.sort(dim=1, descending=True, stable=True)
        top = min(question.options.top_k, len(question.labels))
        likeliest = zip(sorted_chances[:, :top].tolist(), order[:, :top].tolist(), strict=True)
        return [
            ImageResult(
                tuple(Prediction(question.labels[at], value) for value, at in zip(*best, strict=True)),
                self.shares(route, scores, row),
            )
            for row, best in enumerate(likeliest)
        ]
