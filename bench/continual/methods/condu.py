"""ConDU through the store that the service runs, and what is left of it without one of its parts."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from bench.continual.evaluating import Cell, Lesson, ask_service
from bench.continual.findings import overlap, routing
from bench.continual.fine_tunes import TunedCheckpoint
from bench.continual.methods.contract import Method
from bench.continual.stage import Stage
from bench.suites import Tuning
from store.checkpoints import FoldOutcome, NewTask
from store.manifest import FusionOptions, Manifest
from vlm.prediction_options import PredictionOptions


class Condu(Method):
    """Decouple and unify: each task is folded into the one unified delta, and answered for by its expert.

    A task that was not learned (in the task-agnostic setting, any) is answered for by the experts whose
    prototypes are nearest to the image.
    """

    def __init__(self, stage: Stage, tuning: Tuning) -> None:
        super().__init__(stage, tuning)
        self.manifest: Manifest | None = None
        self._head: str | None = None
        self._fine_tunes: dict[str, TunedCheckpoint] = {}
        self._fidelity: list[dict[str, Any]] = []

    @classmethod
    def work(cls, stage: Stage, step: int) -> int:
        routed = 1 + min(stage.plan.routing.k, step + 1)
        return sum(
            lesson.num_test * (1 if cls._is_named(stage, place, step + 1) else routed)
            for place, lesson in enumerate(stage.lessons)
        )

    def learn(self, lesson: Lesson) -> None:
        fine_tune = self.stage.fine_tune(lesson, self.tuning)
        store, plan = self.stage.store, self.stage.plan
        prototypes = store.blobs.put(self.stage.prototypes_of(lesson).to_bytes())
        with self.stage.lease_base(self.tuning) as base:
            outcome = store.fold(
                base,
                parent=self._head,
                options=FusionOptions(rescaler_norm=plan.rescaler_norm, unified_dtype=plan.unified_dtype),
                new_task=NewTask(lesson.name, lesson.classes, lesson.task.templates, prototypes.digest),
                checkpoint=fine_tune.checkpoint,
            )
        self._head, self.manifest = self.published(outcome)
        self.learned.append(lesson)
        self._fine_tunes[lesson.name] = fine_tune
        self._fidelity.append(self._measured(outcome))

    def published(self, outcome: FoldOutcome) -> tuple[str, Manifest]:
        """The digest and the manifest of the revision that the next task is folded into."""
        return outcome.manifest_digest, outcome.manifest

    def row(self) -> list[Cell]:
        return [self._cell(place, lesson) for place, lesson in enumerate(self.stage.lessons)]

    def size_bytes(self) -> int:
        return 0 if self.manifest is None else self.stage.store.sizes(self.manifest).total

    def findings(self) -> Mapping[str, Any]:
        if self.manifest is None:
            return {}
        return {
            "fidelity": self._fidelity,
            "overlap": overlap(self.stage.store, self.manifest),
            "routing": routing(self.stage, self.manifest),
        }

    def _cell(self, place: int, lesson: Lesson) -> Cell:
        is_named = self._is_named(self.stage, place, len(self.learned))
        options = PredictionOptions(
            task=lesson.name if is_named else None, top_k=1, **self.stage.plan.routing.to_dict()
        )
        cell = ask_service(
            self.stage.predictor,
            self.stage.ref(self.tuning),
            self.manifest,
            lesson=lesson,
            options=options,
            union=self.stage.union,
        )
        routed = 1 + min(options.k, len(self.learned))
        self.stage.meter.done(lesson.num_test * (1 if is_named else routed))
        return cell

    def _original(self, task: str) -> Tensor:
        """The delta that ConDU gave up; read from the file, for a dozen of them may not fit into memory."""
        return self.stage.delta(self._fine_tunes[task], self.tuning)

    @staticmethod
    def _is_named(stage: Stage, place: int, num_learned: int) -> bool:
        return place < num_learned and stage.plan.setting != "task-agnostic"

    def _measured(self, outcome: FoldOutcome) -> dict[str, Any]:
        """How close every expert of this revision is to the task's ORIGINAL delta."""
        manifest = self.manifest or outcome.manifest
        found = {}
        with self.stage.lease_base(self.tuning) as base:
            for task in manifest.tasks:
                original = self._original(task.name)
                served = self.stage.store.rebuild(base, manifest, task.name).flat - base.flat
                size, served_size = original.double().norm(), served.double().norm()
                product = float((original.double() @ served.cpu().double()) / (size * served_size))
                measures = asdict(outcome.tasks[task.name])
                found[task.name] = {
                    "relative_l2": float((served.cpu().double() - original.double()).norm() / size),
                    "cosine": product if served_size > 0 else 0.0,
                    "density": measures["density"],
                    "rescaler": task.rescaler,
                    "bits_cleared": measures["bits_cleared"],
                }
        return found


class ConduNoRescale(Condu):
    """ConDU with every rescaler 1, when it decouples and when it answers."""

    def published(self, outcome: FoldOutcome) -> tuple[str, Manifest]:
        tasks = tuple(replace(task, rescaler=1.0) for task in outcome.manifest.tasks)
        manifest = replace(outcome.manifest, tasks=tasks)
        return self.stage.store.blobs.put(manifest.to_json()).digest, manifest


class ConduNoAggregation(Condu):
    """ConDU whose base alone answers for tasks that were not learned; learned ones are always named."""

    @classmethod
    def work(cls, stage: Stage, step: int) -> int:
        return sum(lesson.num_test for lesson in stage.lessons[: step + 1])

    def row(self) -> list[Cell]:
        seen = [self._cell(place, lesson) for place, lesson in enumerate(self.learned)]
        return seen + self.stage.zero_shot()[len(self.learned) :]

    def findings(self) -> Mapping[str, Any]:
        return {}

    @staticmethod
    def _is_named(stage: Stage, place: int, num_learned: int) -> bool:  # noqa: ARG004 - the contract's
        return place < num_learned


class ConduTensorRescalers(ConduNoAggregation):
    """ConDU that answers with a rescaler a tensor, from norms of the originals that ConDU does not keep.

    Fusion decouples with the one rescaler a task as ever; what is asked here is how much of what an expert
    lost lies in its tensors' scales. Unseen tasks get the base.
    """

    def row(self) -> list[Cell]:
        cells = []
        for lesson in self.learned:
            expert = self.stage.expert_of_delta(self._delta(lesson.name), self.tuning)
            cells += self.stage.ask(expert, [lesson])
        return cells + self.stage.zero_shot()[len(self.learned) :]

    def _delta(self, task: str) -> Tensor:
        """The served delta with the L1 norm of every tensor as the original has it."""
        if self.manifest is None:
            raise ValueError("nothing has been learned")
        with self.stage.lease_base(self.tuning) as base:
            served = self.stage.store.rebuild(base, self.manifest, task).flat - base.flat
            original = base.space.views(self._original(task).to(served.device))
            for name, view in base.space.views(served).items():
                size = view.abs().sum(dtype=torch.float64)
                if size > 0:
                    view.mul_(float(original[name].abs().sum(dtype=torch.float64) / size))
        return served
