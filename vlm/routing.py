"""Which experts answer for a picture, and with which weight. Tensors in, tensors out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Weighting = Literal["uniform", "similarity", "softmax"]


@dataclass(frozen=True)
class Route:
    """Who answers for N pictures. Column 0 is the base, column 1 + i task i.

    Attributes:
        chosen: Who takes part.
        weights: Each row sums to 1 over the chosen, 0 elsewhere.
    """

    chosen: Bool[Tensor, "N columns"]
    weights: Float[Tensor, "N columns"]


def similarities(
    features: Float[Tensor, "N D"], prototypes: Sequence[Float[Tensor, "_ D"]]
) -> Float[Tensor, "N tasks"]:
    """s_i = max over the classes c of task i of cos(f_img(x; theta0), P^i_c)."""
    return torch.stack([(features @ vectors.T).amax(dim=1) for vectors in prototypes], dim=1)


def choose(
    scores: Float[Tensor, "N tasks"],
    *,
    k: int,
    include_base: bool,
    weighting: Weighting = "uniform",
    temperature: float = 1.0,
) -> Route:
    """The k experts of highest score, and the base if wanted; of equal scores the earlier task goes first.

    The base has no prototypes. Where weights follow the scores it counts as much as the best expert chosen,
    as in the released code's soft variant: it is the one model that is never out of its domain.

    Args:
        scores: As `similarities` gives them.
        k: At most this many experts.
        include_base: Whether the base takes part.
        weighting: `uniform`: equal weights. `similarity`: in proportion to the score, negative ones counting
            0 (equal
            weights where all do). `softmax`: in proportion to exp(score / temperature).
        temperature: Above 0.
    """
    num_images, num_tasks = scores.shape
    order = scores.sort(dim=1, descending=True, stable=True).indices[:, :k]
    experts = torch.zeros(num_images, num_tasks, dtype=torch.bool).scatter_(1, order, True)  # noqa: FBT003
    chosen = torch.cat([torch.full((num_images, 1), include_base), experts], dim=1)
    best = (
        scores.masked_fill(~experts, -torch.inf).amax(dim=1, keepdim=True)
        if num_tasks
        else scores.sum(1, keepdim=True)
    )
    votes = _votes(torch.cat([best, scores], dim=1), weighting, temperature)
    votes = votes.masked_fill(~chosen, 0)
    total = votes.sum(dim=1, keepdim=True)
    votes = torch.where(total > 0, votes, chosen.float())
    return Route(chosen, votes / votes.sum(dim=1, keepdim=True))


def _votes(scores: Tensor, weighting: Weighting, temperature: float) -> Tensor:
    if weighting == "similarity":
        return scores.clamp(min=0)
    if weighting == "softmax":
        # The best score is column 0's, so that no exponent is above 0.
        return ((scores - scores[:, :1]) / temperature).exp()
    return torch.ones_like(scores)
