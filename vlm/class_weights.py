"""The classifier that a text tower writes: one vector a label."""

import hashlib
import json
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812  # PyTorch's own name for it
from jaxtyping import Float
from torch import Tensor, nn

from vlm.cache import CacheStats, LeasedCache
from vlm.experts import Expert
from vlm.features import mean_text_features
from vlm.tokenizer import Tokenizer


@torch.inference_mode()
def class_weights(
    model: nn.Module, tokenizer: Tokenizer, *, labels: Sequence[str], templates: Sequence[str]
) -> Float[Tensor, "C D"]:
    """Per label, the normalised mean over the templates of the normalised text features."""
    return F.normalize(mean_text_features(model, tokenizer, labels=labels, templates=templates), dim=-1)


class ClassWeightCache:
    """Class weights by (expert, labels, templates), computed once. Thread-safe.

    Args:
        max_bytes: Bound on what is kept.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._cache: LeasedCache[tuple[str, str, str], Tensor] = LeasedCache(max_bytes=max_bytes)

    def get(self, expert: Expert, *, labels: Sequence[str], templates: Sequence[str]) -> Float[Tensor, "C D"]:
        """The expert's class weights; the caller must not write to them."""

        def make() -> tuple[Tensor, int]:
            weights = class_weights(expert.model, expert.tokenizer, labels=labels, templates=templates)
            return weights, weights.numel() * weights.element_size()

        choices = hashlib.sha256(json.dumps([list(labels), list(templates)]).encode()).hexdigest()
        with self._cache.lease((expert.architecture_digest, expert.digest, choices), make) as weights:
            # Tensors are not changed or recycled after eviction, so the value may outlive its lease.
            return weights

    def stats(self) -> CacheStats:
        """What is kept."""
        return self._cache.stats()
