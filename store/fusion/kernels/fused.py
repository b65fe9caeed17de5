"""The same arithmetic compiled for the CPU: a pass reads packed bits and floats once and unpacks nothing."""

import threading
from typing import final

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64, UInt8
from torch import Tensor

from store.bits import PackedBits
from store.fusion.contract import Chunk, ReadMask, WriteMask, WriteUnified
from store.fusion.kernels import fold_words, rebuild_words
from store.fusion.kernels.contract import ChunkSums, Kernels
from store.fusion.kernels.vectors import WORD
from store.fusion.measures import Segments
from store.parameters import CHUNK_ELEMENTS

_ROWS = 32
"""Tasks whose bits are held together: as many bytes as one chunk of float32. More tasks are read twice."""
_ROW_PADDING = 16
"""Words between rows; without it all rows of a word fall into one set of the first-level cache."""


@final
class FusedKernels(Kernels):
    """Compiled; each thread has a workspace of four chunks that does not grow with the number of tasks."""

    def __init__(self) -> None:
        self._local = threading.local()

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
        work = self._workspace()
        groups = range(0, len(rescalers), _ROWS)
        raw = work.raw[: len(delta)]
        self._decide(work, unified, delta, rescalers=rescalers, read_mask=read_mask, out=raw)
        stored = write_unified(raw)
        bounds = segments.bounds // WORD
        products, bits = [], []
        for first in groups:
            count = min(_ROWS, len(rescalers) - first)
            if len(groups) > 1:
                work.read(read_mask, first=first, count=count, num_bits=len(delta))
            sums, counts = work.fold_rows(count, unified, stored, bounds=bounds, weights=segments.weights)
            products.append(sums)
            bits.append(counts)
            for row in range(count):
                write_mask(first + row, work.row(row, len(delta)))
        norm, sums, counts = work.fold_new(delta, stored, bounds=bounds, weights=segments.weights)
        write_mask(len(rescalers), work.row(0, len(delta)))
        return ChunkSums(np.concatenate([*products, sums]), np.concatenate([*bits, counts]), norm)

    def _decide(
        self,
        work: "_Workspace",
        unified: Chunk,
        delta: Chunk,
        *,
        rescalers: Float32[np.ndarray, " old_tasks"],
        read_mask: ReadMask,
        out: Chunk,
    ) -> None:
        """The new unified delta; the bits of the last tasks stay in the workspace's rows."""
        num_earlier = max(len(rescalers) - 1, 0) // _ROWS * _ROWS
        size = len(delta) if num_earlier else WORD
        votes, largest = work.votes[:size], work.largest[:size]
        votes.fill(0.0)
        largest.fill(0.0)
        for first in range(0, num_earlier, _ROWS):
            work.read(read_mask, first=first, count=_ROWS, num_bits=len(delta))
            group = rescalers[first : first + _ROWS]
            fold_words.vote(work.rows, _ROWS, len(delta) // WORD, group, votes, largest)
        group = rescalers[num_earlier:]
        work.read(read_mask, first=num_earlier, count=len(group), num_bits=len(delta))
        fold_words.decide(work.rows, len(group), group, unified, delta, votes, largest, out)

    def rebuild(
        self,
        *,
        base: Float[Tensor, " elements"],
        unified: Float[Tensor, " elements"],
        mask: UInt8[Tensor, " bytes"],
        rescaler: float,
        out: Float[Tensor, " elements"],
    ) -> None:
        rebuild = (
            rebuild_words.rebuild
            if out.data_ptr() % rebuild_words.STREAM_BYTES
            else rebuild_words.rebuild_streaming
        )
        words = mask.numpy().view(np.uint32)
        rebuild(base.numpy(), unified.numpy(), words, np.float32(rescaler), out.numpy())

    def _workspace(self) -> "_Workspace":
        if not hasattr(self._local, "workspace"):
            self._local.workspace = _Workspace()
        workspace: _Workspace = self._local.workspace
        return workspace


class _Workspace:
    """What one thread needs for a chunk: three chunks of floats, and the bits of _ROWS tasks."""

    def __init__(self) -> None:
        self.votes, self.largest, self.raw = (np.empty(CHUNK_ELEMENTS, np.float32) for _ in range(3))
        # Written to once, so that all of it is in memory from the start, however few tasks there are.
        self.rows = np.full((_ROWS, CHUNK_ELEMENTS // WORD + _ROW_PADDING), 0, np.uint32)
        self._sums = np.zeros((_ROWS, 4))
        self._counts = np.zeros((_ROWS, 2), np.int64)

    def row(self, row: int, num_bits: int) -> PackedBits:
        packed: PackedBits = self.rows[row].view(np.uint8)[: num_bits // 8]
        return packed

    def read(self, read_mask: ReadMask, *, first: int, count: int, num_bits: int) -> None:
        for row in range(count):
            read_mask(first + row, self.row(row, num_bits))

    def fold_rows(
        self,
        count: int,
        old: Chunk,
        new: Chunk,
        *,
        bounds: Int64[np.ndarray, " cuts"],
        weights: Float64[np.ndarray, " segments"],
    ) -> tuple[Float64[np.ndarray, "rows 4"], Int64[np.ndarray, "rows 2"]]:
        """Fold the first rows in place; return their sums and counts."""
        self._sums.fill(0.0)
        self._counts.fill(0)
        # Rows go together; what the last ones hold beyond `count` is folded too, and left out.
        fold_words.fold_rows(self.rows, count, old, new, bounds, weights, self._sums, self._counts)
        return self._sums[:count].copy(), self._counts[:count].copy()

    def fold_new(
        self,
        delta: Chunk,
        stored: Chunk,
        *,
        bounds: Int64[np.ndarray, " cuts"],
        weights: Float64[np.ndarray, " segments"],
    ) -> tuple[float, Float64[np.ndarray, "1 4"], Int64[np.ndarray, "1 2"]]:
        """The new task's bits in the first row; its norm N, its sums and its counts."""
        words = self.rows[0, : len(delta) // WORD]
        fold_words.mark_nonzero(delta, words)
        sums, counts = self.fold_rows(1, delta, stored, bounds=bounds, weights=weights)
        return fold_words.weighted_l1(delta, bounds, weights), sums, counts
