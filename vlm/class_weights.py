"""The classifier that a text tower writes: one vector a label."""

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F  # noqa: N812  # PyTorch's own name for it
from jaxtyping import Float
from torch import Tensor, nn

from vlm.cache import CacheStats, LeasedCache
from vlm.features import TextMeans, mean_text_features
from vlm.tokenizer import Tokenizer

V = TypeVar("V")


@torch.inference_mode()
def class_weights(
    model: nn.Module, tokenizer: Tokenizer, *, labels: Sequence[str], templates: Sequence[str]
) -> Float[Tensor, "C D"]:
    """Per label, the normalised mean over the templates of the normalised text features."""
    return F.normalize(mean_text_features(model, tokenizer, labels=labels, templates=templates), dim=-1)


@torch.inference_mode()
def finish_class_weights(means: TextMeans) -> Float[Tensor, "C D"]:
    """The class weights, once the means are complete."""
    return F.normalize(means.result(), dim=-1)


@dataclass(frozen=True)
class Classifier:
    """All that turns an expert's image features into its logits; it shares no memory with the expert.

    Attributes:
        weights: One row a label.
        scale: exp(logit_scale).
        bias: The model's logit_bias, where it has one.
    """

    weights: Float[Tensor, "C D"]
    scale: Float[Tensor, ""]
    bias: Float[Tensor, ""] | None

    @classmethod
    @torch.inference_mode()
    def of(cls, model: nn.Module, weights: Float[Tensor, "C D"]) -> "Classifier":
        """The classifier of a model for labels whose class weights are these."""
        bias: Tensor | None = getattr(model, "logit_bias", None)
        return cls(
            weights,
            scale=model.get_parameter("logit_scale").exp(),
            bias=None if bias is None else bias.clone(),
        )

    @torch.inference_mode()
    def logits(self, features: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        """The scale times the cosine, plus the bias."""
        scaled = self.scale * features @ self.weights.T
        return scaled if self.bias is None else scaled + self.bias

    @property
    def size_bytes(self) -> int:
        """What it takes in memory."""
        return self.weights.numel() * self.weights.element_size()


@dataclass(frozen=True)
class ClassifierName:
    """What a classifier depends on, all of it: equal names are equal bits.

    Attributes:
        architecture: Digest of the expert's architecture.
        expert: Digest of its weights.
        choices: Digest of the labels and the templates, in their order.
    """

    architecture: str
    expert: str
    choices: str


def digest_choices(labels: Sequence[str], templates: Sequence[str]) -> str:
    """sha256 of what is to be chosen among, and how it is put."""
    return hashlib.sha256(json.dumps([list(labels), list(templates)]).encode()).hexdigest()


class ClassifierCache:
    """Classifiers by name, within a bound in bytes. Thread-safe.

    Classifiers are not changed or recycled after eviction, so one may outlive its lease: the methods hand
    them out as values.

    Args:
        max_bytes: Bound on what is kept.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._cache: LeasedCache[ClassifierName, Classifier] = LeasedCache(max_bytes=max_bytes)

    def find(self, name: ClassifierName) -> Classifier | None:
        """The classifier, if it is kept."""
        return _value(self._cache.lease_if_here(name))

    def get(self, name: ClassifierName, make: Callable[[], Classifier]) -> Classifier:
        """The classifier, made where it is missing; who asks for it meanwhile waits for it."""

        def sized() -> tuple[Classifier, int]:
            made = make()
            return made, made.size_bytes

        return _value(self._cache.lease(name, sized))

    def stats(self) -> CacheStats:
        """What is kept."""
        return self._cache.stats()


def _value(lease: AbstractContextManager[V]) -> V:
    with lease as value:
        return value
