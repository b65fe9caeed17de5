"""How pictures are to be answered for, checked as far as no model is needed to check it."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from vlm.errors import InvalidOptionsError
from vlm.routing import Weighting

Space = Literal["logits", "probabilities"]
LabelSet = Literal["own", "union"]


@dataclass(frozen=True, kw_only=True)
class PredictionOptions:
    """How to answer; the defaults are the released ones.

    Attributes:
        task: That task's expert alone answers; None lets each picture find its experts.
        labels: What to choose among, instead of a label set.
        label_set: `own`, the classes of the task that is named; `union`, all that the model has learned; None
            is `own` where a task is named, else `union`.
        templates: Prompts; else the task's own, or DEFAULT_TEMPLATES where none is named.
        top_k: Labels in an answer.
        k: Experts a picture may have, beside the base.
        include_base: Whether the base answers too where no task is named.
        weighting: `uniform`, `similarity` or `softmax`, as `routing.choose` has it.
        temperature: Of `softmax`.
        space: What is averaged: `logits`, or `probabilities`.

    Raises:
        InvalidOptionsError: A value outside its range.
    """

    task: str | None = None
    labels: tuple[str, ...] | None = None
    label_set: LabelSet | None = None
    templates: tuple[str, ...] | None = None
    top_k: int = 5
    k: int = 4
    include_base: bool = True
    weighting: Weighting = "uniform"
    temperature: float = 0.05
    space: Space = "logits"

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise InvalidOptionsError(f"top_k is {self.top_k}; at least 1 label makes an answer")
        if self.k < 0:
            raise InvalidOptionsError(f"k is {self.k}; it counts experts, from 0")
        if self.k == 0 and not self.include_base and self.task is None:
            raise InvalidOptionsError(
                "k is 0 and include_base is false, so nobody answers; raise k or include the base"
            )
        if self.weighting not in get_args(Weighting):
            raise InvalidOptionsError(
                f"weighting {self.weighting!r}: use one of {', '.join(get_args(Weighting))}"
            )
        if self.space not in get_args(Space):
            raise InvalidOptionsError(f"space {self.space!r}: use one of {', '.join(get_args(Space))}")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise InvalidOptionsError(f"temperature is {self.temperature}; it is a number above 0")
        self._check_label_set()

    def _check_label_set(self) -> None:
        if self.label_set is None:
            return
        if self.label_set not in get_args(LabelSet):
            raise InvalidOptionsError(
                f"label_set {self.label_set!r}: use one of {', '.join(get_args(LabelSet))}"
            )
        if self.labels is not None:
            raise InvalidOptionsError(
                f"labels and label_set {self.label_set!r} both say what to choose among; give one of them"
            )
        if self.label_set == "own" and self.task is None:
            raise InvalidOptionsError(
                "label_set 'own' is the classes of a task, and no task is named; name one, or use 'union'"
            )
