"""The same arithmetic in torch operations, for CUDA and any other device.

Bits are unpacked and packed on the device; what comes back to the host is what is written: one chunk of the
unified delta, the packed bits, and a few sums.
"""

from typing import final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from store.fusion.contract import Chunk, ReadMask, WriteMask, WriteUnified
from store.fusion.kernels.contract import ChunkSums, Kernels
from store.fusion.measures import Segments

_PIECE_ELEMENTS = 2**24
"""A rebuild unpacks this many bits at a time: 16 MiB of booleans, 128 MiB of temporaries."""


@final
class DeviceKernels(Kernels):
    """Runs on the given torch device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._shifts = torch.arange(8, dtype=torch.uint8, device=device)

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
        u, d = (torch.from_numpy(chunk).to(self._device) for chunk in (unified, delta))
        raw = self._vote(u, d, rescalers=rescalers, read_mask=read_mask)
        stored = torch.from_numpy(write_unified(raw.cpu().numpy())).to(self._device)
        weights = self._weights(segments)
        keep, won = (((v > 0) & (stored > 0)) | ((v < 0) & (stored < 0)) for v in (u, d))
        products, counts = [], []
        for task in range(len(rescalers) + 1):
            is_new = task == len(rescalers)
            before = d != 0 if is_new else self._read(read_mask, task, len(delta))
            after = before & (won if is_new else keep)
            products.append(
                _products(before, after, reference=d if is_new else u, stored=stored, weights=weights)
            )
            counts.append(torch.stack([before.sum(), after.sum()]))
            write_mask(task, self._packed(after).cpu().numpy())
        norm = (d.abs().double() * weights).sum()
        return ChunkSums(
            torch.stack(products).cpu().numpy(), torch.stack(counts).cpu().numpy(), new_norm=float(norm)
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
        scale = float(np.float32(rescaler))
        for start in range(0, len(out), _PIECE_ELEMENTS):
            piece = slice(start, start + _PIECE_ELEMENTS)
            owned = self._unpacked(mask[start // 8 : (start + _PIECE_ELEMENTS) // 8])[: len(out) - start]
            torch.where(owned, base[piece] + scale * unified[piece], base[piece], out=out[piece])

    def _vote(
        self,
        u: Float[Tensor, " elements"],
        d: Float[Tensor, " elements"],
        *,
        rescalers: Float32[np.ndarray, " old_tasks"],
        read_mask: ReadMask,
    ) -> Float[Tensor, " elements"]:
        votes, largest = torch.zeros_like(d), torch.zeros_like(d)
        zero = torch.zeros((), device=self._device)
        for task, rescaler in enumerate(rescalers):
            owned = torch.where(self._read(read_mask, task, len(d)), float(rescaler), zero)
            votes += owned
            torch.maximum(largest, owned, out=largest)
        positive = u * votes + d > 0
        old = torch.where(torch.where(positive, u > 0, u < 0), u.abs() * largest, zero)
        new = torch.where(torch.where(positive, d > 0, d < 0), d.abs(), zero)
        magnitude = torch.maximum(old, new)
        return torch.where(positive, magnitude, zero - magnitude)

    def _read(self, read_mask: ReadMask, task: int, num_bits: int) -> Bool[Tensor, " elements"]:
        packed = np.empty(num_bits // 8, dtype=np.uint8)
        read_mask(task, packed)
        return self._unpacked(torch.from_numpy(packed).to(self._device))

    def _unpacked(self, packed: UInt8[Tensor, " bytes"]) -> Bool[Tensor, " elements"]:
        return ((packed[:, None] >> self._shifts) & 1).bool().view(-1)

    def _packed(self, bits: Bool[Tensor, " elements"]) -> UInt8[Tensor, " bytes"]:
        return (bits.view(-1, 8).to(torch.uint8) << self._shifts).sum(dim=1, dtype=torch.uint8)

    def _weights(self, segments: Segments) -> Float[Tensor, " elements"]:
        sizes = torch.from_numpy(np.diff(segments.bounds))
        return torch.from_numpy(segments.weights).repeat_interleave(sizes).to(self._device)


def _products(
    before: Bool[Tensor, " elements"],
    after: Bool[Tensor, " elements"],
    *,
    reference: Float[Tensor, " elements"],
    stored: Float[Tensor, " elements"],
    weights: Float[Tensor, " elements"],
) -> Float[Tensor, " 4"]:
    zero = torch.zeros((), device=stored.device)
    x = torch.where(after, stored, zero).double()
    r = torch.where(before, reference, zero).double()
    return torch.stack([(x.abs() * weights).sum(), (x * x).sum(), (x * r).sum(), (r * r).sum()])
