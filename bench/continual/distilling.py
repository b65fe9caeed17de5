"""Knowledge distillation for the baselines that fine-tune one model on and on: LwF and ZSCL.

Beside the loss of its task, the model is to answer as a frozen teacher does: softmax over prompts of the
cosines, at the frozen logit scale divided by a temperature; the distance is the cross-entropy to the
teacher's answer, times temperature squared.

LwF (Li and Hoiem, 2016, for CLIP as in the ZSCL paper): the teacher is the model before the task, the images
are the task's own, the prompts those of the tasks learned before. ZSCL (Zheng et al., 2023; here without its
weight ensemble, published as ZSCL*): the teacher is the pre-trained model, images and prompts are a reference
set of captioned pictures, and the answers are compared both ways: captions for a picture, pictures for a
caption.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from jaxtyping import Float
from torch import Tensor, nn

from store.safefile import SafeFile
from vlm.features import image_features, text_features
from vlm.text_tower import encode_text
from worker.training.loop import Regulariser
from worker.training.order import ImageOrder
from worker.training.spec import TrainingSpec

TEMPERATURE = 2.0
PROMPTS_A_STEP = 64
"""Earlier prompts that a step compares; all of 1,000 classes would cost more than the task itself."""


class Distillation(ABC):
    """What is added to a fine-tuning so that less is forgotten."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """JSON-able values: all that the outcome depends on."""

    @abstractmethod
    def begin(self, spec: TrainingSpec) -> Regulariser:
        """The term for one run; it depends on the iteration alone, so that a killed run goes on."""


@dataclass(frozen=True)
class LessForgetting(Distillation):
    """LwF: on the task's images, answer for the earlier tasks' prompts as before.

    Attributes:
        teacher: The checkpoint before the task.
        teacher_identity: What it was made from.
        prompts: Of the tasks learned before.
        weight: Of the term.
    """

    teacher: Path
    teacher_identity: str
    prompts: tuple[str, ...]
    weight: float = 1.0

    def identity(self) -> dict[str, Any]:
        return {
            "method": "lwf",
            "teacher": self.teacher_identity,
            "prompts": list(self.prompts),
            "weight": self.weight,
            "temperature": TEMPERATURE,
            "prompts_a_step": PROMPTS_A_STEP,
        }

    def begin(self, spec: TrainingSpec) -> Regulariser:
        teacher = _load(spec, self.teacher)
        tokens = spec.architecture.tokenizer()(list(self.prompts)).to(spec.device)
        known = text_features(teacher, tokens)
        order = ImageOrder(
            range(len(tokens)), batch_size=min(PROMPTS_A_STEP, len(tokens)), seed=spec.options.seed
        )

        def term(model: nn.Module, images: Tensor, iteration: int) -> Tensor:
            chosen = torch.tensor(order.batch(iteration), device=tokens.device)
            wanted = image_features(teacher, images) @ known[chosen].T
            student: Any = model
            found = (
                student.encode_image(images, normalize=True)
                @ F.normalize(encode_text(model, tokens[chosen]), dim=-1).T
            )
            return self.weight * distance(found, wanted, scale=_scale(teacher))

        return term


@dataclass(frozen=True)
class ReferencePreservation(Distillation):
    """ZSCL*: on captioned reference pictures, answer as the pre-trained model, both ways.

    Attributes:
        base: The pre-trained checkpoint.
        base_identity: Its digest.
        pictures: The reference pictures, preprocessed.
        captions: One a picture.
        reference_identity: Digest of both.
        batch_size: Pairs a step.
        weight: Of the term.
    """

    base: Path
    base_identity: str
    pictures: Sequence[Tensor]
    captions: tuple[str, ...]
    reference_identity: str
    batch_size: int = 32
    weight: float = 1.0

    def identity(self) -> dict[str, Any]:
        return {
            "method": "zscl",
            "teacher": self.base_identity,
            "reference": self.reference_identity,
            "batch_size": self.batch_size,
            "weight": self.weight,
            "temperature": TEMPERATURE,
        }

    def begin(self, spec: TrainingSpec) -> Regulariser:
        teacher = _load(spec, self.base)
        tokens = spec.architecture.tokenizer()(list(self.captions)).to(spec.device)
        size = min(self.batch_size, len(tokens))
        order = ImageOrder(range(len(tokens)), batch_size=size, seed=spec.options.seed)

        def term(model: nn.Module, images: Tensor, iteration: int) -> Tensor:  # noqa: ARG001 - the contract's
            chosen = order.batch(iteration)
            shown = torch.stack([self.pictures[place] for place in chosen]).to(tokens.device)
            said = tokens[torch.tensor(chosen, device=tokens.device)]
            wanted = image_features(teacher, shown) @ text_features(teacher, said).T
            student: Any = model
            found = (
                student.encode_image(shown, normalize=True) @ F.normalize(encode_text(model, said), dim=-1).T
            )
            scale = _scale(teacher)
            return self.weight * (
                distance(found, wanted, scale=scale) + distance(found.T, wanted.T, scale=scale)
            )

        return term


def distance(
    found: Float[Tensor, "N C"], wanted: Float[Tensor, "N C"], *, scale: Tensor
) -> Float[Tensor, ""]:
    """Temperature squared times the mean cross-entropy of the softened answers to the teacher's."""
    target = (scale * wanted.clone() / TEMPERATURE).softmax(dim=1)
    answer = (scale * found.float() / TEMPERATURE).log_softmax(dim=1)
    return -(target * answer).sum(dim=1).mean() * TEMPERATURE**2


def _load(spec: TrainingSpec, checkpoint: Path) -> nn.Module:
    tensors = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in SafeFile(checkpoint).tensors().items()
    }
    teacher = spec.architecture.build(tensors).to(spec.device)
    return teacher.requires_grad_(requires_grad=False)


def _scale(teacher: nn.Module) -> Tensor:
    return teacher.get_parameter("logit_scale").exp()
