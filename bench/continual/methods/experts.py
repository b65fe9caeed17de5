"""Methods that keep something of each task, and answer for a learned task with its own expert."""

import torch
from torch import Tensor

from bench.continual.evaluating import Cell, Lesson
from bench.continual.fine_tunes import TunedCheckpoint
from bench.continual.methods.contract import Method
from bench.continual.stage import Stage
from bench.suites import Tuning
from store.bits import pack_bits
from store.codecs.bits import encode_mask
from store.codecs.floats import encode_floats
from store.parameters import CHUNK_ELEMENTS


class Individual(Method):
    """One fine-tuned checkpoint a task, and the base for tasks that were not learned: the upper bound."""

    def __init__(self, stage: Stage, tuning: Tuning) -> None:
        super().__init__(stage, tuning)
        self._fine_tunes: list[TunedCheckpoint] = []
        self._cells: dict[int, Cell] = {}

    @classmethod
    def work(cls, stage: Stage, step: int) -> int:
        return stage.lessons[step].num_test

    def learn(self, lesson: Lesson) -> None:
        self._fine_tunes.append(self.stage.fine_tune(lesson, self.tuning))
        self.learned.append(lesson)

    def row(self) -> list[Cell]:
        for place, fine_tune in enumerate(self._fine_tunes):
            if place not in self._cells:
                expert = self.stage.expert_of_file(fine_tune.checkpoint, self.tuning)
                self._cells[place] = self.stage.ask(expert, [self.stage.lessons[place]])[0]
        unseen = self.stage.zero_shot()[len(self.learned) :]
        return [self._cells[place] for place in range(len(self.learned))] + unseen

    def size_bytes(self) -> int:
        return self.stage.checkpoint_bytes + len(self.learned) * self.stage.fine_tune_bytes(self.tuning)


class Emr(Method):
    """EMR-Merging (Huang et al., 2024): all kept originals unified at once, a mask and a rescaler a task.

    It has no router: a learned task is named, another gets the base. The originals must be kept, since one
    more task changes every mask.
    """

    def __init__(self, stage: Stage, tuning: Tuning) -> None:
        super().__init__(stage, tuning)
        self._deltas: list[Tensor] = []
        self._shared_bytes = 0

    @classmethod
    def work(cls, stage: Stage, step: int) -> int:
        return sum(lesson.num_test for lesson in stage.lessons[: step + 1])

    def learn(self, lesson: Lesson) -> None:
        self._deltas.append(self.stage.delta(self.stage.fine_tune(lesson, self.tuning), self.tuning))
        self.learned.append(lesson)

    def row(self) -> list[Cell]:
        unified = unify(self._deltas)
        self._shared_bytes = _float_bytes(unified)
        cells = []
        for lesson, delta in zip(self.learned, self._deltas, strict=True):
            mask = delta * unified > 0
            self._shared_bytes += _mask_bytes(mask)
            expert = self.stage.expert_of_delta(rescaled(delta, unified, mask), self.tuning)
            cells += self.stage.ask(expert, [lesson])
        return cells + self.stage.zero_shot()[len(self.learned) :]

    def size_bytes(self) -> int:
        return self.stage.one_model_bytes(self.tuning) + self._shared_bytes

    def kept_bytes(self) -> int:
        return self.size_bytes() + len(self.learned) * self.stage.fine_tune_bytes(self.tuning)


def unify(deltas: list[Tensor]) -> Tensor:
    """Per entry, the largest magnitude of the sign that the sum has (method.md section 2, step 3)."""
    total = torch.zeros_like(deltas[0])
    for delta in deltas:
        total += delta
    gamma = torch.where(total > 0, 1.0, -1.0)
    largest = torch.zeros_like(total)
    for delta in deltas:
        torch.maximum(largest, delta * gamma, out=largest)
    return gamma * largest


def rescaled(delta: Tensor, unified: Tensor, mask: Tensor) -> Tensor:
    """Lambda M u, with the L1 norm of the delta."""
    masked = torch.where(mask, unified, 0.0)
    support = masked.abs().sum(dtype=torch.float64)
    return masked * float(delta.abs().sum(dtype=torch.float64) / support) if support > 0 else masked


def _float_bytes(values: Tensor) -> int:
    """What the store's own codec makes of them."""
    parts = [part for chunk in _chunks(values) for part in encode_floats(chunk.numpy(), "float32").parts]
    return sum(len(payload) for _, payload in parts)


def _mask_bytes(mask: Tensor) -> int:
    return sum(len(encode_mask(pack_bits(chunk.numpy()))[1]) for chunk in _chunks(mask))


def _chunks(flat: Tensor) -> list[Tensor]:
    return [flat[start : start + CHUNK_ELEMENTS] for start in range(0, len(flat), CHUNK_ELEMENTS)]
