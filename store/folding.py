"""Runs a fusion over all chunks, several at a time, reading the old artefacts and writing the new ones.

Nothing waits in memory for its turn: a chunk's bits are written as soon as those of the chunk before it are,
task by task, so that the memory a fusion takes does not depend on how many tasks there are.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float
from torch import Tensor

from store.bits import PackedBits
from store.blobs import Blobs
from store.codecs.bits import MaskReader, MaskWriter, encode_mask
from store.codecs.floats import FloatReader, FloatWriter, encode_floats
from store.experts import open_mask, open_unified
from store.fusion import Chunk, Fold
from store.manifest import Manifest
from store.parallel import ordered_map
from store.parameters import CHUNK_ELEMENTS, ParameterSpace


@dataclass(frozen=True)
class FoldedArtefacts:
    """Digests of what a fusion wrote: the unified delta, and the masks of all tasks, the new one last."""

    unified: str
    masks: tuple[str, ...]


def fold_artefacts(
    blobs: Blobs,
    fold: Fold,
    space: ParameterSpace,
    *,
    old: Manifest | None,
    delta: Float[Tensor, " flat"],
    unified_dtype: str,
    on_progress: Callable[[int, int], None] | None = None,
) -> FoldedArtefacts:
    """Fold a delta into a revision's artefacts (none for the first) and write the next ones.

    Raises:
        CorruptBlobError: An old artefact is damaged.
        BlobsUnavailableError: The storage refused; nothing but leftovers was written.
    """
    starts = range(0, space.flat_size, CHUNK_ELEMENTS)
    old_tasks = old.tasks if old else ()
    with contextlib.ExitStack() as stack:
        sinks = [stack.enter_context(blobs.writer()) for _ in range(len(old_tasks) + 2)]
        chunks = _Chunks(
            fold,
            delta.numpy(),
            unified=open_unified(blobs, old.unified, space) if old and old.unified else None,
            masks=[open_mask(blobs, task.mask, space) for task in old_tasks],
            unified_writer=FloatWriter(
                sinks[0], layout=space.digest, num_elements=space.flat_size, dtype=unified_dtype
            ),
            mask_writers=[
                MaskWriter(sink, layout=space.digest, num_bits=space.flat_size) for sink in sinks[1:]
            ],
        )
        for done, _ in enumerate(ordered_map(partial(chunks.fold, unified_dtype), starts), start=1):
            if on_progress:
                on_progress(done, len(starts))
        chunks.finish()
        unified, *masks = (sink.commit().digest for sink in sinks)
        return FoldedArtefacts(unified, tuple(masks))


class _Chunks:
    """What the chunks of one fusion are read from and written to."""

    def __init__(
        self,
        fold: Fold,
        delta: Chunk,
        *,
        unified: FloatReader | None,
        masks: list[MaskReader],
        unified_writer: FloatWriter,
        mask_writers: list[MaskWriter],
    ) -> None:
        self._fold, self._delta = fold, delta
        self._unified, self._masks = unified, masks
        self._unified_writer, self._mask_writers = unified_writer, mask_writers
        self._turns = _Turns(1 + len(mask_writers))

    def fold(self, dtype: str, start: int) -> None:
        """Fold the chunk that begins at `start`."""
        index = start // CHUNK_ELEMENTS
        delta = self._delta[start : start + CHUNK_ELEMENTS]

        def write_unified(chunk: Chunk) -> Chunk:
            encoded = encode_floats(chunk, dtype)
            with self._turns.turn(0, index):
                self._unified_writer.add(encoded)
            return encoded.values

        def write_mask(task: int, packed: PackedBits) -> None:
            encoded = encode_mask(packed)
            with self._turns.turn(1 + task, index):
                self._mask_writers[task].add(*encoded)

        with self._turns.broken_by_errors(index):
            self._fold.add_chunk(
                start,
                unified=np.zeros_like(delta) if self._unified is None else self._unified.chunk(index),
                delta=delta,
                read_mask=lambda task, out: self._masks[task].chunk(index, out=out),
                write_mask=write_mask,
                write_unified=write_unified,
            )

    def finish(self) -> None:
        """Write the indexes."""
        self._unified_writer.finish()
        for writer in self._mask_writers:
            writer.finish()


class _Turns:
    """Lets threads write to each sink in the order of their chunks."""

    def __init__(self, num_sinks: int) -> None:
        self._next = [0] * num_sinks
        self._broken_at: int | None = None
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def turn(self, sink: int, index: int) -> Iterator[None]:
        """Wait until all chunks before this one have been written to the sink."""
        with self._changed:
            self._changed.wait_for(lambda: self._next[sink] == index or self._is_broken_before(index))
            if self._is_broken_before(index):
                raise InterruptedError(f"chunk {self._broken_at} failed, so chunk {index} is not written")
        yield
        with self._changed:
            self._next[sink] += 1
            self._changed.notify_all()

    @contextlib.contextmanager
    def broken_by_errors(self, index: int) -> Iterator[None]:
        """Where a chunk fails, those that wait for it fail too, instead of waiting for ever."""
        try:
            yield
        except BaseException:
            with self._changed:
                self._broken_at = index if self._broken_at is None else min(index, self._broken_at)
                self._changed.notify_all()
            raise

    def _is_broken_before(self, index: int) -> bool:
        return self._broken_at is not None and self._broken_at < index
