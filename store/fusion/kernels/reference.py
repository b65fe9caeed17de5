"""The formulas written plainly with numpy; what the fast kernels are held against."""

from typing import final

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from store.bits import pack_bits, unpack_bits
from store.fusion.contract import Chunk, ReadMask, WriteMask, WriteUnified
from store.fusion.kernels.contract import ChunkSums, Kernels
from store.fusion.measures import Segments, weighted_l1

Bits = Bool[np.ndarray, " elements"]
_ZERO = np.float32(0.0)


@final
class ReferenceKernels(Kernels):
    """Slow and plain."""

    def fold_chunk(
        self,
        *,
        unified: Chunk,
        delta: Chunk,
        rescalers: Float32[np.ndarray, " old_tasks"],
        segments: Segments,
        read_mask: ReadMask,
        write_mask: WriteMask,
        write_unified: WriteUnified,
    ) -> ChunkSums:
        masks = [_read(read_mask, task, len(delta)) for task in range(len(rescalers))]
        keep, won, unified_new = _vote(unified, delta, masks=masks, rescalers=rescalers)
        stored = write_unified(unified_new)
        products: list[list[float]] = []
        bits: list[list[int]] = []
        for before, after, reference in [
            *((mask, mask & keep & (stored != 0), unified) for mask in masks),
            (delta != 0, won & (stored != 0), delta),
        ]:
            x, r = (np.where(mask, v, _ZERO) for mask, v in ((after, stored), (before, reference)))
            wide_x, wide_r = x.astype(np.float64), r.astype(np.float64)
            pairs = ((wide_x, wide_x), (wide_x, wide_r), (wide_r, wide_r))
            products.append([weighted_l1(x, segments), *(float(a @ b) for a, b in pairs)])
            write_mask(len(bits), pack_bits(after))
            bits.append([int(np.count_nonzero(before)), int(np.count_nonzero(after))])
        return ChunkSums(
            np.array(products), np.array(bits, dtype=np.int64), new_norm=weighted_l1(delta, segments)
        )

    def rebuild(
        self,
        *,
        base: Float[Tensor, " elements"],
        unified: Float[Tensor, " elements"],
        mask: UInt8[Tensor, " bytes"],
        rescaler: float,
        out: Float[Tensor, " elements"],
    ) -> None:
        theta, owned = base.numpy(), unpack_bits(mask.numpy(), len(base))
        out.numpy()[:] = np.where(owned, theta + np.float32(rescaler) * unified.numpy(), theta)


def _read(read_mask: ReadMask, task: int, num_bits: int) -> Bits:
    packed = np.empty(num_bits // 8, dtype=np.uint8)
    read_mask(task, packed)
    return unpack_bits(packed, num_bits)


def _vote(
    unified: Chunk, delta: Chunk, *, masks: list[Bits], rescalers: Float32[np.ndarray, " old_tasks"]
) -> tuple[Bits, Bits, Chunk]:
    """Which old entries keep their sign, which new ones won it, and the new unified delta."""
    votes, largest = np.zeros_like(delta), np.zeros_like(delta)
    for mask, rescaler in zip(masks, rescalers, strict=True):
        owned = np.where(mask, rescaler, _ZERO)
        votes += owned
        np.maximum(largest, owned, out=largest)
    positive = unified * votes + delta > 0
    keep = np.where(positive, unified > 0, unified < 0)
    won = np.where(positive, delta > 0, delta < 0)
    magnitude = np.maximum(
        np.where(keep, np.abs(unified) * largest, _ZERO), np.where(won, np.abs(delta), _ZERO)
    )
    return keep, won, np.where(positive, magnitude, _ZERO - magnitude)
