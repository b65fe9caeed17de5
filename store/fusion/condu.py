"""ConDU: one unified delta, a one-bit mask and one rescaler a task (arXiv 2503.10705, sections 3.2 and 3.3).

The old experts are never materialised. With s = sum_i lambda_i M_i and m = max_i lambda_i M_i over the old
tasks, one pass over (u, masks, delta) gives what decoupling every task and unifying all of them would give:

    e = u s + delta            gamma = +1 where e > 0, else -1 (a tie gives -1)
    keep = u gamma > 0         u' = gamma max(keep |u| m, [delta gamma > 0] |delta|)
    M_i' = M_i and keep        M_new = delta gamma > 0           lambda_i' = N_i / ||M_i' u'||

Elementwise arithmetic is float32 with one rounding per operation, in the order written and with tasks in
their order; norms, lambda and the measures accumulate in float64. A bit is also cleared where the stored u'
underflows to zero, so that in terms of what is stored a bit survives where u and u' (for the new task: delta
and u') have the same sign and neither is zero.
"""

import math
from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from store.fusion.contract import (
    Chunk,
    Fold,
    FoldedTask,
    FusionKind,
    OldTask,
    ReadMask,
    WriteMask,
    WriteUnified,
)
from store.fusion.kernels import ChunkSums, DeviceKernels, FusedKernels, Kernels
from store.fusion.measures import TensorWeights, cosine, relative_l2


@final
class Condu(FusionKind):
    """The paper's fusion.

    Args:
        kernels: What does the arithmetic; without it, compiled code on the CPU and torch elsewhere.
    """

    def __init__(self, kernels: Kernels | None = None) -> None:
        self._kernels = kernels
        self._fused = FusedKernels()

    def begin(self, *, old_tasks: Sequence[OldTask], weights: TensorWeights, device: str = "cpu") -> Fold:
        return _ConduFold(old_tasks, weights, self._kernels_for(torch.device(device)))

    def rebuild(
        self,
        *,
        base: Float[Tensor, " elements"],
        unified: Float[Tensor, " elements"],
        mask: UInt8[Tensor, " bytes"],
        rescaler: float,
        out: Float[Tensor, " elements"],
    ) -> None:
        self._kernels_for(out.device).rebuild(
            base=base, unified=unified, mask=mask, rescaler=rescaler, out=out
        )

    def _kernels_for(self, device: torch.device) -> Kernels:
        if self._kernels is not None:
            return self._kernels
        return self._fused if device.type == "cpu" else DeviceKernels(device)


@final
class _ConduFold(Fold):
    def __init__(self, old_tasks: Sequence[OldTask], weights: TensorWeights, kernels: Kernels) -> None:
        self._old_tasks = tuple(old_tasks)
        self._rescalers = np.array([task.rescaler for task in old_tasks], dtype=np.float32)
        self._weights = weights
        self._kernels = kernels
        self._sums: dict[int, ChunkSums] = {}

    def add_chunk(
        self,
        start: int,
        *,
        unified: Chunk,
        delta: Chunk,
        read_mask: ReadMask,
        write_mask: WriteMask,
        write_unified: WriteUnified,
    ) -> None:
        self._sums[start] = self._kernels.fold_chunk(
            unified=unified,
            delta=delta,
            rescalers=self._rescalers,
            segments=self._weights.segments(start, len(delta)),
            read_mask=read_mask,
            write_mask=write_mask,
            write_unified=write_unified,
        )

    def finish(self) -> list[FoldedTask]:
        # fsum rounds once, so the order in which the chunks came in leaves no trace.
        new_norm = math.fsum(chunk.new_norm for chunk in self._sums.values())
        products = np.stack([chunk.products for chunk in self._sums.values()])
        bits = np.sum([chunk.bits for chunk in self._sums.values()], axis=0)
        known = [*((task.l1_norm, task.rescaler) for task in self._old_tasks), (new_norm, 1.0)]
        return [
            _folded(
                [math.fsum(column) for column in products[:, task].T],
                bits[task],
                l1_norm=l1_norm,
                scale=scale,
            )
            for task, (l1_norm, scale) in enumerate(known)
        ]


def _folded(products: list[float], bits: np.ndarray, *, l1_norm: float, scale: float) -> FoldedTask:
    """The task after the fusion, with lambda = N / ||M u|| (0 where the mask is empty)."""
    support, xx, xr, rr = products
    before, after = (int(count) for count in bits)
    rescaler = l1_norm / support if support > 0.0 else 0.0
    return FoldedTask(
        rescaler=rescaler,
        l1_norm=l1_norm,
        bits_set=after,
        bits_cleared=before - after,
        relative_l2=relative_l2(xx=xx, xr=xr, rr=rr, rescaler=rescaler, scale=scale),
        cosine=cosine(xx=xx, xr=xr, rr=rr),
    )
