"""Methods that have one model for all tasks, and so ask it about every task."""

import hashlib
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bench.continual.distilling import Distillation, LessForgetting, ReferencePreservation
from bench.continual.evaluating import Cell, Lesson
from bench.continual.fine_tunes import TunedCheckpoint
from bench.continual.methods.contract import Method
from bench.continual.stage import Stage
from bench.errors import BenchError
from bench.suites import Tuning
from store.safefile import SafeFile, write_safetensors
from vlm.experts import Expert
from vlm.prompts import fill

WISE_ALPHA = 0.5
"""Share of the fine-tuned weights; the rest are those before the task."""
TASK_ARITHMETIC_SCALE = 0.3
"""What Ilharco et al. (2023) recommend without a validation set."""
TIES_KEPT = 0.2
"""Share of each delta that TIES keeps, by magnitude (Yadav et al., 2023); the merged delta counts once."""


class OneModel(Method):
    """One model that is asked about every task."""

    @abstractmethod
    def expert(self) -> Expert:
        """The model as it is now."""

    def row(self) -> list[Cell]:
        return self.stage.ask(self.expert(), self.stage.lessons)

    def size_bytes(self) -> int:
        return self.stage.one_model_bytes(self.tuning)


class ZeroShot(Method):
    """The base, which learns nothing."""

    def learn(self, lesson: Lesson) -> None:
        self.learned.append(lesson)

    def row(self) -> list[Cell]:
        return list(self.stage.zero_shot())

    def size_bytes(self) -> int:
        return self.stage.checkpoint_bytes


class Sequential(OneModel):
    """One model fine-tuned on and on: each task starts from where the one before ended."""

    def __init__(self, stage: Stage, tuning: Tuning) -> None:
        super().__init__(stage, tuning)
        self.last: TunedCheckpoint | None = None

    def learn(self, lesson: Lesson) -> None:
        self.last = self.stage.fine_tunes.get(
            self.stage.ground(self.tuning),
            lesson,
            self.stage.options(lesson.name, self.tuning),
            start=self.last,
            distillation=self.distillation(),
        )
        self.learned.append(lesson)

    def distillation(self) -> Distillation | None:
        """What is added to the loss."""
        return None

    def expert(self) -> Expert:
        if self.last is None:
            raise ValueError("nothing has been learned")
        return self.stage.expert_of_file(self.last.checkpoint, self.tuning)


class Lwf(Sequential):
    """Sequential fine-tuning that keeps its answers for the earlier tasks' prompts (learning w/o forgetting).

    The first task has nothing before it, so it is plain fine-tuning.
    """

    def distillation(self) -> Distillation | None:
        if self.last is None:
            return None
        prompts = tuple(
            fill(lesson.task.templates[0], name) for lesson in self.learned for name in lesson.classes
        )
        return LessForgetting(self.last.checkpoint, self.last.identity, tuple(dict.fromkeys(prompts)))


class Zscl(Sequential):
    """Sequential fine-tuning that answers for reference pictures as the pre-trained model does (ZSCL*)."""

    def distillation(self) -> Distillation:
        return self._reference

    def __init__(self, stage: Stage, tuning: Tuning) -> None:
        super().__init__(stage, tuning)
        if stage.reference is None:
            raise BenchError(
                "zscl needs a set of captioned pictures to distil on",
                remedy="name a folder of pictures with a .txt caption beside each: --reference FOLDER",
            )
        ground = stage.ground("full")
        shown = [stage.base.preprocessing.load(path) for path in stage.reference.pictures]
        self._reference = ReferencePreservation(
            base=ground.weights,
            base_identity=stage.base.digest,
            pictures=shown,
            captions=stage.reference.captions,
            reference_identity=_digest(shown, stage.reference.captions),
        )


class WiseFt(Sequential):
    """Sequential fine-tuning, each result averaged with the weights before the task (Wortsman et al., 2022).

    As a baseline of continual learning the interpolation is done after every task, between the model before
    it and the fine-tuned one, so that one model is all that is kept.
    """

    def learn(self, lesson: Lesson) -> None:
        before = self.last
        super().learn(lesson)
        after = self.last
        if after is None:
            raise ValueError("a task was learned without a result")
        path = after.checkpoint.with_name("wise_ft.safetensors")
        if not path.exists():
            start = self._start() if before is None else before.checkpoint
            old, new = SafeFile(start).tensors(), SafeFile(after.checkpoint).tensors()
            write_safetensors(path, {name: _between(old[name], new[name]) for name in new})
        self.last = TunedCheckpoint(f"wise-ft {WISE_ALPHA}: {after.identity}", path, after.seconds)

    def _start(self) -> Path:
        ground = self.stage.ground(self.tuning)
        return ground.weights if ground.adapter is None else ground.adapter


@dataclass
class _Merged:
    total: Tensor
    count: int


class Average(OneModel):
    """theta0 plus the mean of the tasks' deltas: all individual checkpoints averaged."""

    def __init__(self, stage: Stage, tuning: Tuning) -> None:
        super().__init__(stage, tuning)
        self._merged: _Merged | None = None

    def learn(self, lesson: Lesson) -> None:
        delta = self.stage.delta(self.stage.fine_tune(lesson, self.tuning), self.tuning)
        if self._merged is None:
            self._merged = _Merged(delta.clone(), 1)
        else:
            self._merged.total += delta
            self._merged.count += 1
        self.learned.append(lesson)

    def expert(self) -> Expert:
        if self._merged is None:
            raise ValueError("nothing has been learned")
        return self.stage.expert_of_delta(self.scale(self._merged.count) * self._merged.total, self.tuning)

    def scale(self, count: int) -> float:
        """What the sum of `count` deltas is multiplied by."""
        return 1.0 / count

    def kept_bytes(self) -> int:
        # Deltas are taken from the base, which a model with an adapter has by itself.
        return self.stage.checkpoint_bytes + self.stage.fine_tune_bytes(self.tuning)


class TaskArithmetic(Average):
    """theta0 plus 0.3 times the sum of the tasks' deltas (Ilharco et al., 2023)."""

    def scale(self, count: int) -> float:  # noqa: ARG002 - the contract's
        return TASK_ARITHMETIC_SCALE


class Ties(OneModel):
    """Trim, elect sign and merge (Yadav et al., 2023): the mean of the largest entries that agree in sign."""

    def __init__(self, stage: Stage, tuning: Tuning) -> None:
        super().__init__(stage, tuning)
        self._trimmed: list[Tensor] = []

    def learn(self, lesson: Lesson) -> None:
        delta = self.stage.delta(self.stage.fine_tune(lesson, self.tuning), self.tuning)
        self._trimmed.append(trimmed(delta, TIES_KEPT))
        self.learned.append(lesson)

    def expert(self) -> Expert:
        return self.stage.expert_of_delta(merged_by_ties(self._trimmed), self.tuning)

    def kept_bytes(self) -> int:
        return self.stage.checkpoint_bytes + len(self.learned) * self.stage.fine_tune_bytes(self.tuning)


def trimmed(delta: Tensor, share: float) -> Tensor:
    """The delta with all but the `share` largest magnitudes set to zero."""
    count = max(1, round(share * delta.numel()))
    threshold = delta.abs().kthvalue(delta.numel() - count + 1).values
    return torch.where(delta.abs() >= threshold, delta, 0.0)


def merged_by_ties(trimmed_deltas: list[Tensor]) -> Tensor:
    """Per entry, the mean of those non-zero values whose sign is that of the sum; 0 where there is none."""
    sign = torch.stack(trimmed_deltas).sum(dim=0).sign()
    total, count = torch.zeros_like(sign), torch.zeros_like(sign)
    for delta in trimmed_deltas:
        agrees = delta * sign > 0
        total += torch.where(agrees, delta, 0.0)
        count += agrees
    return total / count.clamp(min=1)


def _between(old: Tensor, new: Tensor) -> Tensor:
    if not new.is_floating_point():
        return new
    return (1 - WISE_ALPHA) * old.to(new.dtype) + WISE_ALPHA * new


def _digest(pictures: list[Tensor], captions: tuple[str, ...]) -> str:
    digest = hashlib.sha256("\n".join(captions).encode())
    for picture in pictures:
        digest.update(picture.numpy().tobytes())
    return digest.hexdigest()
