"""Reads a foreign safetensors file without trusting it, and writes the canonical form of one.

Nothing of the file is believed before it is checked: the header's length, its JSON, every dtype, shape and
offset. A file that passes describes each of its bytes exactly once. Values are not looked at here (NaN is
found where values are read).
"""

import json
import math
import mmap
import os
import struct
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from store.errors import BlobsUnavailableError, InvalidUploadError
from store.parameters import MAX_DIMENSIONS, MAX_NAME_LENGTH, MAX_TENSORS, TORCH_DTYPES
from store.strict_json import parse_object

MAX_HEADER_BYTES = 16 * 2**20

DTYPE_NAMES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
FILE_DTYPES = {name: code for code, name in DTYPE_NAMES.items()}

_CONVERT = (
    "convert it with safetensors.torch.save_file(model.state_dict(), 'model.safetensors') and upload that"
)


@dataclass(frozen=True)
class TensorRange:
    """Where one tensor lies in a file: dtype name, shape, and absolute byte positions [start, stop)."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class SafeHeader:
    """The checked header of a safetensors file."""

    tensors: Mapping[str, TensorRange]
    metadata: Mapping[str, str]


class SafeFile:
    """A checked safetensors file, mapped; it stays mapped while a tensor of it lives.

    Raises:
        InvalidUploadError: The file is not a safetensors file of the known dtypes that describes all its
            bytes once.
    """

    def __init__(self, path: Path) -> None:
        self.header = read_header(path)
        with path.open("rb") as file:
            # Private: torch asks for writable memory, and a stray write can never reach the file. Never
            # closed by hand: torch keeps the mapping alive but does not stop a close under its feet.
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def tensor(self, name: str) -> Tensor:
        """The named tensor: a view of the mapping where it is aligned, else a copy."""
        return _tensor(self._map, self.header.tensors[name])

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        return {name: self.tensor(name) for name in self.header.tensors}


def read_header(path: Path) -> SafeHeader:
    """The header of a safetensors file after every check that needs no tensor values.

    Raises:
        InvalidUploadError: Names what is wrong and, where one can guess, what to do.
    """
    with path.open("rb") as file:
        return _checked_header(file.read(8), file.read, path.stat().st_size)


def parse_safetensors(content: memoryview) -> dict[str, Tensor]:
    """The tensors of a safetensors file in writable memory, after the same checks; views if aligned."""
    header = parse_header(content)
    return {name: _tensor(content, entry) for name, entry in header.tensors.items()}


def parse_header(content: memoryview) -> SafeHeader:
    """The header of a safetensors file in memory, after the same checks."""
    return _checked_header(bytes(content[:8]), lambda size: bytes(content[8 : 8 + size]), len(content))


def _checked_header(start: bytes, read_on: Callable[[int], bytes], file_size: int) -> SafeHeader:
    if len(start) < 8:
        raise InvalidUploadError(
            f"the file has {file_size} bytes, too short for safetensors; upload it again whole"
        )
    header_size = struct.unpack("<Q", start)[0]
    if header_size > min(MAX_HEADER_BYTES, file_size - 8):
        # Not before: a header of 640 or 1,152 bytes begins with the same two bytes as a pickle.
        if start[:2] in {b"PK", b"\x80\x02", b"\x80\x04"}:
            raise InvalidUploadError(
                f"this is a PyTorch pickle file, not safetensors; pickles are never read: {_CONVERT}"
            )
        raise InvalidUploadError(
            f"the header claims {header_size} bytes in a file of {file_size} "
            f"(at most {MAX_HEADER_BYTES} are read); the file is truncated or not safetensors: {_CONVERT}"
        )
    raw = read_on(header_size)
    values = _parse_json(raw)
    metadata = values.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise InvalidUploadError(
            "__metadata__ must map names to strings; save the file again with safetensors"
        )
    if len(values) > MAX_TENSORS:
        raise InvalidUploadError(f"the file names {len(values)} tensors; at most {MAX_TENSORS} are read")
    data_start = 8 + header_size
    tensors = {
        name: _checked_range(name, entry, data_start=data_start, file_size=file_size)
        for name, entry in values.items()
    }
    _check_coverage(tensors, data_start, file_size)
    return SafeHeader(tensors, metadata)


def _tensor(content: mmap.mmap | memoryview, entry: TensorRange) -> Tensor:
    dtype = TORCH_DTYPES[entry.dtype]
    if entry.start == entry.stop:
        return torch.empty(entry.shape, dtype=dtype)
    if entry.start % dtype.itemsize == 0:
        flat = torch.frombuffer(content, dtype=dtype, count=math.prod(entry.shape), offset=entry.start)
    else:
        flat = torch.frombuffer(bytearray(content[entry.start : entry.stop]), dtype=dtype)
    return flat.view(entry.shape)


def _parse_json(raw: bytes) -> dict[str, Any]:
    try:
        return parse_object(raw)
    except ValueError as error:
        raise InvalidUploadError(
            f"the header is not JSON ({error}); the file is damaged or not safetensors"
        ) from error


def _checked_range(name: str, entry: object, *, data_start: int, file_size: int) -> TensorRange:
    shown = repr(name[:80])
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidUploadError(
            f"tensor name {shown}... has {len(name)} characters; at most {MAX_NAME_LENGTH} are read"
        )
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise InvalidUploadError(
            f"tensor {shown}: needs exactly dtype, shape and data_offsets; save the file again"
        )
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_NAMES:
        known = ", ".join(DTYPE_NAMES)
        raise InvalidUploadError(
            f"tensor {shown}: dtype {str(dtype)[:20]!r} is not one of {known}; cast it before saving"
        )
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise InvalidUploadError(
            f"tensor {shown}: shape (of at most {MAX_DIMENSIONS}) and data_offsets must be lists of "
            "whole numbers >= 0"
        )
    begin, end = offsets
    size = math.prod(shape) * TORCH_DTYPES[DTYPE_NAMES[dtype]].itemsize
    if end - begin != size or data_start + end > file_size:
        raise InvalidUploadError(
            f"tensor {shown}: shape {shape} of {dtype} needs {size} bytes, the header gives [{begin}, {end}) "
            f"of {file_size - data_start}; the file is truncated or damaged, upload it again"
        )
    return TensorRange(DTYPE_NAMES[dtype], tuple(shape), data_start + begin, data_start + end)


def _are_counts(values: object) -> bool:
    # Bounded in number too: the product of a million large dimensions takes hours.
    if not isinstance(values, list) or len(values) > MAX_DIMENSIONS:
        return False
    return all(type(n) is int and 0 <= n < 2**63 for n in values)


def _check_coverage(tensors: Mapping[str, TensorRange], data_start: int, file_size: int) -> None:
    position = data_start
    for name, entry in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != position:
            raise InvalidUploadError(
                f"tensor {name[:80]!r} starts at byte {entry.start}, expected {position}: "
                "tensors overlap or leave a hole; save the file again with safetensors"
            )
        position = entry.stop
    if position != file_size:
        raise InvalidUploadError(
            f"{file_size - position} bytes after the last tensor belong to none; upload the file again"
        )


def header_bytes(
    entries: Iterable[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str] | None = None
) -> bytes:
    """The length prefix and header of a safetensors file whose tensors follow in the given order.

    Args:
        entries: (name, dtype name, shape) of each tensor, in file order.
        metadata: Strings by name for `__metadata__`.
    """
    values: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, dtype, shape in entries:
        size = math.prod(shape) * TORCH_DTYPES[dtype].itemsize
        values[name] = {
            "dtype": FILE_DTYPES[dtype],
            "shape": list(shape),
            "data_offsets": [position, position + size],
        }
        position += size
    text = json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (
        -len(text) % 8
    )  # so that data starts at a multiple of 8 bytes, as every other writer does
    return struct.pack("<Q", len(text)) + text


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The little-endian bytes of a tensor, without a copy where it is contiguous and on the CPU."""
    flat = tensor.detach().to("cpu").contiguous().view(-1)
    if flat.numel() == 0:
        return memoryview(b"")
    return flat.view(torch.uint8).numpy().data


def dtype_name(tensor: Tensor) -> str:
    """The name under which the store knows the tensor's dtype, such as "float32"."""
    return str(tensor.dtype).removeprefix("torch.")


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors in canonical form (sorted by name); the file appears whole or not at all.

    Raises:
        BlobsUnavailableError: The disk is full or refused the write; nothing is left behind.
    """
    names = sorted(tensors)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(
                header_bytes([(n, dtype_name(tensors[n]), tuple(tensors[n].shape)) for n in names], metadata)
            )
            for name in names:
                file.write(tensor_bytes(tensors[name]))
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError as error:
        raise BlobsUnavailableError(
            f"cannot write {path}: {error.strerror}; free disk space and try again"
        ) from error
    finally:
        Path(temporary).unlink(missing_ok=True)
