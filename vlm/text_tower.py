"""The text tower, run over no more positions than its prompts fill."""

from typing import Any

from jaxtyping import Float, Int64
from open_clip import CLIP
from open_clip.transformer import text_global_pool
from torch import Tensor, nn


def encode_text(model: nn.Module, tokens: Int64[Tensor, "N L"]) -> Float[Tensor, "N D"]:
    """What the model's own encode_text gives, but for rounding; with gradients where they are enabled.

    Prompts are short and contexts are long: of 77 positions "a photo of a cat." fills 8. Where attention
    looks back only and the feature is read at the end-of-text token, positions after it cannot matter, so
    they are cut off.
    """
    tower: Any = model
    length = _used_length(tower, tokens)
    if length == tokens.shape[1]:
        features: Tensor = tower.encode_text(tokens)
        return features
    short = tokens[:, :length]
    hidden = tower.token_embedding(short) + tower.positional_embedding[:length]
    hidden = tower.ln_final(tower.transformer(hidden, attn_mask=tower.attn_mask[:length, :length]))
    return _projected(tower.text_projection, text_global_pool(hidden, short, tower.text_pool_type))


def _used_length(model: Any, tokens: Tensor) -> int:
    """Up to where the tokens matter: the last end-of-text token, which is the largest number."""
    is_plain = type(model) is CLIP and model.attn_mask is not None and model.text_pool_type == "argmax"
    return int(tokens.argmax(dim=1).max()) + 1 if is_plain else tokens.shape[1]


def _projected(projection: Any, pooled: Tensor) -> Tensor:
    if projection is None:
        return pooled
    projected: Tensor = projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection
    return projected
