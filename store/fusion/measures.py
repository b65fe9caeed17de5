"""The norm in which a model measures its deltas, and how close a served delta is to what it stands for."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64


@dataclass(frozen=True)
class Segments:
    """A chunk cut where its weights change.

    Attributes:
        bounds: Elements from the chunk's start, ascending, first 0 and last the chunk's size.
        weights: What |x| counts in each segment.
    """

    bounds: Int64[np.ndarray, " cuts"]
    weights: Float64[np.ndarray, " segments"]


@dataclass(frozen=True)
class TensorWeights:
    """How the norm of a flat buffer is formed: sum of weight |x|, one weight a tensor.

    Attributes:
        starts: Where each weight begins in the flat buffer, ascending from 0.
    """

    starts: Int64[np.ndarray, " tensors"]
    weights: Float64[np.ndarray, " tensors"]

    @classmethod
    def of(
        cls, norm: str, *, starts: Int64[np.ndarray, " tensors"], sizes: Int64[np.ndarray, " tensors"]
    ) -> "TensorWeights":
        """The weights of a norm.

        `global_l1` (the paper) is sum |x|; `tensor_mean_l1` (the released code, EMR-Merging) is the sum over
        tensors of the mean |x|, so a tensor weighs 1 / size. Empty tensors weigh nothing.
        """
        if norm == "global_l1":
            return cls(np.zeros(1, dtype=np.int64), np.ones(1))
        # An empty tensor shares its start with its neighbour.
        return cls(starts[sizes > 0], 1.0 / sizes[sizes > 0])

    def segments(self, start: int, size: int) -> Segments:
        """The weights of the elements [start, start + size) of the flat buffer."""
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        last = int(np.searchsorted(self.starts, start + size, side="left"))
        cuts = np.maximum(self.starts[first:last] - start, 0)
        return Segments(np.append(cuts, size), self.weights[first:last])


def weighted_l1(values: Float32[np.ndarray, " elements"], segments: Segments) -> float:
    """Sum of weight |x| over a chunk, in float64."""
    sums = np.add.reduceat(np.abs(values), segments.bounds[:-1], dtype=np.float64)
    return math.fsum(segments.weights * sums)


def relative_l2(*, xx: float, xr: float, rr: float, rescaler: float, scale: float) -> float:
    """||rescaler x - scale r|| / ||scale r|| from the three products of x and r.

    0 where both are zero, infinite where only the reference is.
    """
    reference = scale**2 * rr
    distance = rescaler**2 * xx - 2 * rescaler * scale * xr + reference
    if reference == 0.0:
        return 0.0 if xx == 0.0 else math.inf
    return math.sqrt(max(distance, 0.0) / reference)


def cosine(*, xx: float, xr: float, rr: float) -> float:
    """cos(x, r) from their three products; 0 where either is zero."""
    product = math.sqrt(xx) * math.sqrt(rr)
    return xr / product if product > 0.0 else 0.0
