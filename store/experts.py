"""Rebuilds experts, base + decoupled delta: whole into a buffer, or any bytes of a safetensors file."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from store.bases import Base
from store.blobs import Blobs
from store.codecs.bits import MaskReader
from store.codecs.floats import FloatReader
from store.errors import CorruptBlobError, NotFoundError
from store.fusion import FusionKind, fusion_kind
from store.manifest import Manifest, TaskEntry
from store.parallel import ordered_map
from store.parameters import CHUNK_ELEMENTS, TORCH_DTYPES, ParameterSpace, TensorSpec
from store.safefile import header_bytes, parse_safetensors, tensor_bytes

_PIECE_BYTES = 2**20


class BlobSource:
    """A blob as a source of byte ranges."""

    def __init__(self, blobs: Blobs, digest: str) -> None:
        self._blobs = blobs
        self.name = digest
        self.size_bytes = blobs.size_bytes(digest)

    def read(self, start: int, length: int) -> memoryview:
        """Bytes [start, start + length)."""
        return self._blobs.read(self.name, start, length)


def open_mask(blobs: Blobs, digest: str, space: ParameterSpace) -> MaskReader:
    """A reader of the mask; CorruptBlobError where it belongs to another layout."""
    reader = MaskReader(BlobSource(blobs, digest))
    _check_layout(f"mask {digest}", space, layout=reader.layout, size=reader.num_bits)
    return reader


def unified_digest(manifest: Manifest) -> str:
    """The digest of the revision's unified delta; NotFoundError where it has none."""
    if manifest.unified is None:
        raise NotFoundError("the revision has no unified delta: it holds no task; learn one first")
    return manifest.unified


def open_unified(blobs: Blobs, digest: str, space: ParameterSpace) -> FloatReader:
    """A reader of the unified delta; CorruptBlobError where it belongs to another layout."""
    reader = FloatReader(BlobSource(blobs, digest))
    _check_layout(f"unified delta {digest}", space, layout=reader.layout, size=reader.num_elements)
    return reader


def _check_layout(what: str, space: ParameterSpace, *, layout: str, size: int) -> None:
    if layout != space.digest:
        raise CorruptBlobError(f"layout of {what}", expected=space.digest, found=layout)
    if size != space.flat_size:
        raise CorruptBlobError(f"length of {what}", expected=str(space.flat_size), found=str(size))


@dataclass(frozen=True)
class UnifiedDelta:
    """A revision's unified delta in memory; nobody writes to it, so every rebuild can share it.

    Attributes:
        flat: float32, [space.flat_size], on the device of the base it goes with.
    """

    digest: str
    flat: Float[Tensor, " flat"]


def load_unified(blobs: Blobs, digest: str, base: Base) -> UnifiedDelta:
    """The unified delta decoded on all cores, every chunk checked against its sum.

    Raises:
        NotFoundError: There is no such blob.
        CorruptBlobError: A chunk is damaged, or it belongs to another layout.
    """
    reader = open_unified(blobs, digest, base.space)
    flat = torch.empty(base.space.flat_size)
    values = flat.numpy()

    def decode(start: int) -> None:
        reader.chunk(start // CHUNK_ELEMENTS, out=values[start : start + CHUNK_ELEMENTS])

    for _ in ordered_map(decode, range(0, len(values), CHUNK_ELEMENTS)):
        pass
    return UnifiedDelta(digest, flat.to(base.flat.device))


@dataclass(frozen=True)
class Rebuilt:
    """An expert's tensors: a flat float32 buffer that the caller owns, and its float buffers by name."""

    flat: Float[Tensor, " flat"]
    buffers: dict[str, Tensor]


class ExpertReader:
    """Reads one task's expert out of a revision, a chunk or the whole of it, on the base's device.

    Args:
        unified: The revision's unified delta, if it is in memory; without it, its chunks are read and decoded
            as they are needed.
    """

    def __init__(
        self,
        blobs: Blobs,
        base: Base,
        manifest: Manifest,
        *,
        task: TaskEntry,
        unified: UnifiedDelta | None = None,
    ) -> None:
        digest = unified_digest(manifest)
        if manifest.base != base.digest:
            raise CorruptBlobError("base of the revision", expected=manifest.base, found=base.digest)
        if unified is not None and unified.digest != digest:
            raise CorruptBlobError("unified delta of the revision", expected=digest, found=unified.digest)
        self._blobs, self._base, self._task = blobs, base, task
        self._kind: FusionKind = fusion_kind(manifest.options.kind)
        self._unified = open_unified(blobs, digest, base.space) if unified is None else unified
        self._mask = open_mask(blobs, task.mask, base.space)

    def rebuild(self, out: Float[Tensor, " flat"]) -> None:
        """Fill a float32 buffer of the space's flat size with theta0 + delta~, on all cores."""

        def build(start: int) -> None:
            self.rebuild_chunk(start // CHUNK_ELEMENTS, out[start : start + CHUNK_ELEMENTS])

        for _ in ordered_map(build, range(0, len(out), CHUNK_ELEMENTS)):
            pass

    def rebuild_chunk(self, index: int, out: Float[Tensor, " elements"]) -> None:
        """Fill `out` with one chunk of the expert."""
        piece = slice(index * CHUNK_ELEMENTS, (index + 1) * CHUNK_ELEMENTS)
        if isinstance(self._unified, UnifiedDelta):
            unified = self._unified.flat[piece]
        else:
            unified = torch.from_numpy(self._unified.chunk(index)).to(out.device)
        self._kind.rebuild(
            base=self._base.flat[piece],
            unified=unified,
            mask=torch.from_numpy(self._mask.chunk(index)).to(out.device),
            rescaler=self._task.rescaler,
            out=out,
        )

    def buffers(self) -> dict[str, Tensor]:
        """The expert's float buffers: the base's, with the task's own in their place."""
        if self._task.buffers is None:
            return dict(self._base.buffers)
        own = parse_safetensors(memoryview(bytearray(self._blobs.read_checked(self._task.buffers))))
        for name, tensor in own.items():
            expected, found = _described(self._base.buffers.get(name)), _described(tensor)
            if found != expected:
                what = f"buffer {name[:80]!r} of task {self._task.name!r}"
                raise CorruptBlobError(what, expected=expected, found=found)
        return self._base.buffers | own


def _described(buffer: Tensor | None) -> str:
    return "no such buffer" if buffer is None else f"{buffer.dtype} {tuple(buffer.shape)}"


class TensorFile(ABC):
    """A safetensors file of a base's tensors that exists only while it is read.

    It has the base's own tensor names, shapes and dtypes, tensors sorted by name. Any byte range can be read;
    what is not under it need not be made.

    Attributes:
        size_bytes: Length of the whole file.
        etag: What the file is; equal tags are equal bytes.

    Args:
        base: Whose tensors they are.
        whole: The tensors that are not fused, by name.
        expert: The expert's digest, for the file's metadata.
        etag: Of the file.
    """

    def __init__(self, base: Base, whole: Mapping[str, Tensor], *, expert: str, etag: str) -> None:
        self.etag = etag
        self._base, self._whole = base, whole
        self._specs = base.space.all_specs
        entries = [(spec.name, spec.dtype, spec.shape) for spec in self._specs]
        self._header = header_bytes(
            entries, {"format": "pt", "condu_expert": expert, "condu_base": base.digest}
        )
        self.size_bytes = len(self._header) + sum(spec.size_bytes for spec in self._specs)

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
        """The bytes [start, stop) of the file in pieces of at most about a MiB."""
        stop = self.size_bytes if stop is None else min(stop, self.size_bytes)
        position = len(self._header)
        yield from _sliced(memoryview(self._header), start, stop)
        for spec in self._specs:
            if start < position + spec.size_bytes and position < stop:
                yield from self._tensor_range(
                    spec, max(start - position, 0), min(stop - position, spec.size_bytes)
                )
            position += spec.size_bytes

    def _tensor_range(self, spec: TensorSpec, start: int, stop: int) -> Iterator[memoryview]:
        if spec.offset < 0:
            yield from _sliced(tensor_bytes(self._whole[spec.name]), start, stop)
            return
        dtype = TORCH_DTYPES[spec.dtype]
        per_piece = _PIECE_BYTES // dtype.itemsize
        for first in range(start // dtype.itemsize, -(-stop // dtype.itemsize), per_piece):
            count = min(per_piece, spec.size - first)
            values = torch.from_numpy(self._elements(spec, first, count)).to(dtype)
            origin = first * dtype.itemsize
            yield from _sliced(tensor_bytes(values), max(start - origin, 0), stop - origin)

    @abstractmethod
    def _elements(self, spec: TensorSpec, first: int, count: int) -> np.ndarray:
        """Elements [first, first + count) of a fused tensor, in float32."""


class ExpertFile(TensorFile):
    """A task's expert as a file; only the chunks under what is read are rebuilt."""

    def __init__(self, reader: ExpertReader, base: Base, digest: str) -> None:
        super().__init__(base, reader.buffers() | base.fixed, expert=digest, etag=digest)
        self._reader = reader
        # One chunk is kept: hundreds of small tensors share it, and they are read in its order.
        self._rebuilt = lru_cache(maxsize=1)(self._rebuild_chunk)

    def _elements(self, spec: TensorSpec, first: int, count: int) -> np.ndarray:
        start = spec.offset + first
        out = np.empty(count, dtype=np.float32)
        filled = 0
        while filled < count:
            index, within = divmod(start + filled, CHUNK_ELEMENTS)
            chunk = self._rebuilt(index)
            taken = min(count - filled, len(chunk) - within)
            out[filled : filled + taken] = chunk[within : within + taken]
            filled += taken
        return out

    def _rebuild_chunk(self, index: int) -> np.ndarray:
        size = min(CHUNK_ELEMENTS, self._base.space.flat_size - index * CHUNK_ELEMENTS)
        chunk = torch.empty(size, device=self._base.flat.device)
        self._reader.rebuild_chunk(index, chunk)
        return chunk.cpu().numpy()


def _sliced(content: memoryview, start: int, stop: int) -> Iterator[memoryview]:
    piece = content[max(start, 0) : max(stop, 0)]
    if len(piece):
        yield piece
