"""The parameter space of a model: named tensors on one side, one flat float32 buffer on the other.

Tensors stand in the flat buffer sorted by name, each starting at a multiple of ALIGNMENT elements, so that a
mask's bits of one tensor start on a byte and a vector register never straddles two tensors. The padding
between is zero and stays zero under every operation of the store.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from store.errors import IncompatibleTensorsError
from store.strict_json import Fields

ALIGNMENT = 64
"""Elements; 64 float32 are 256 bytes, and 64 mask bits are 8 bytes."""

CHUNK_ELEMENTS = 2**20
"""Elements of the flat buffer that are stored and worked on together (the last chunk may be shorter): 4 MiB
of float32."""

MAX_TENSORS = 50_000
MAX_NAME_LENGTH = 512
MAX_DIMENSIONS = 16
MAX_FLAT_SIZE = 2**48
"""Elements; more than any file system holds, and small enough for all arithmetic on positions."""

FLOAT_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}
FIXED_DTYPES = {
    "int64": torch.int64,
    "int32": torch.int32,
    "int16": torch.int16,
    "int8": torch.int8,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
TORCH_DTYPES = FLOAT_DTYPES | FIXED_DTYPES

Kind = Literal["parameter", "buffer", "fixed"]


@dataclass(frozen=True)
class ExpectedTensor:
    """What an architecture asks of one state-dict entry: its shape, and what the store does with it.

    `parameter` entries are fused; `buffer` entries (floating point, such as BatchNorm statistics) are kept
    whole with their task where they differ from the base; `fixed` entries (integers, bools) must equal the
    base's.
    """

    shape: tuple[int, ...]
    kind: Kind


@dataclass(frozen=True)
class TensorSpec:
    """One tensor; offset and size count elements, the offset is -1 outside the flat buffer."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int
    size: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the tensor in its own dtype."""
        return self.size * TORCH_DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class ParameterSpace:
    """Which tensors a model has, and where each fused one lies in the flat buffer."""

    fused: tuple[TensorSpec, ...]
    buffers: tuple[TensorSpec, ...]
    fixed: tuple[TensorSpec, ...]

    @classmethod
    def describe(cls, entries: Mapping[str, tuple[tuple[int, ...], str, Kind]]) -> "ParameterSpace":
        """The space of a state dict given as name -> (shape, dtype name, kind)."""
        groups: dict[Kind, list[TensorSpec]] = {"parameter": [], "buffer": [], "fixed": []}
        offset = 0
        for name in sorted(entries):
            shape, dtype, kind = entries[name]
            size = math.prod(shape)
            groups[kind].append(TensorSpec(name, shape, dtype, offset if kind == "parameter" else -1, size))
            if kind == "parameter":
                offset += -(-size // ALIGNMENT) * ALIGNMENT
        return cls(tuple(groups["parameter"]), tuple(groups["buffer"]), tuple(groups["fixed"]))

    @cached_property
    def num_parameters(self) -> int:
        """Fused elements, padding not counted."""
        return sum(spec.size for spec in self.fused)

    @cached_property
    def flat_size(self) -> int:
        """Elements of the flat buffer, padding included."""
        return sum(-(-spec.size // ALIGNMENT) * ALIGNMENT for spec in self.fused)

    @cached_property
    def all_specs(self) -> tuple[TensorSpec, ...]:
        """Every tensor of the state dict, sorted by name."""
        return tuple(sorted((*self.fused, *self.buffers, *self.fixed), key=lambda spec: spec.name))

    @cached_property
    def starts(self) -> Int64[np.ndarray, " tensors"]:
        """Offset of each fused tensor in the flat buffer, ascending."""
        return np.array([spec.offset for spec in self.fused], dtype=np.int64)

    @cached_property
    def sizes(self) -> Int64[np.ndarray, " tensors"]:
        """Elements of each fused tensor, in the order of `starts`."""
        return np.array([spec.size for spec in self.fused], dtype=np.int64)

    @cached_property
    def digest(self) -> str:
        """sha256 of the canonical JSON of the layout: names, shapes, dtypes and offsets."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def views(self, flat: Float[Tensor, " flat"]) -> dict[str, Tensor]:
        """The fused tensors as views into the flat buffer; nothing is copied, writes go through."""
        return {
            spec.name: flat[spec.offset : spec.offset + spec.size].view(spec.shape) for spec in self.fused
        }

    def flatten(self, tensors: Mapping[str, Tensor], out: Tensor | None = None) -> Float[Tensor, " flat"]:
        """The flat float32 buffer that holds the given tensors (extra names are ignored).

        Args:
            tensors: At least every fused tensor, of its shape; any float dtype.
            out: A float32 buffer of `flat_size` to fill; its padding is set to zero.

        Raises:
            IncompatibleTensorsError: A tensor is missing or has another shape.
        """
        flat = torch.zeros(self.flat_size) if out is None else out.zero_()
        for spec in self.fused:
            tensor = tensors.get(spec.name)
            if tensor is None or tuple(tensor.shape) != spec.shape:
                got = "nothing" if tensor is None else f"shape {tuple(tensor.shape)}"
                raise IncompatibleTensorsError(
                    spec.name,
                    expected=f"shape {spec.shape}",
                    got=got,
                    remedy="give a state dict of the base's architecture",
                )
            flat[spec.offset : spec.offset + spec.size].view(spec.shape).copy_(tensor)
        return flat

    def to_dict(self) -> dict[str, Any]:
        """The space as JSON-able values; `from_dict` is the inverse."""
        return {
            group: [asdict(spec) | {"shape": list(spec.shape)} for spec in getattr(self, group)]
            for group in ("fused", "buffers", "fixed")
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ParameterSpace":
        """The space that `to_dict` described.

        Raises:
            ValueError: No space is described by these values.
        """
        entries: dict[str, tuple[tuple[int, ...], str, Kind]] = {}
        groups = Fields(values)
        for group, kind, dtypes in _GROUPS:
            rows = groups.items(group)
            if len(entries) + len(rows) > MAX_TENSORS:
                raise ValueError(f"it names more than {MAX_TENSORS} tensors")
            entries |= (_described(Fields(row), kind, tuple(dtypes)) for row in rows)
        space = cls.describe(entries)
        if space.flat_size > MAX_FLAT_SIZE or space.to_dict() != values:
            raise ValueError("its tensors do not lie where their names and shapes put them")
        return space


_GROUPS: tuple[tuple[str, Kind, Mapping[str, torch.dtype]], ...] = (
    ("fused", "parameter", FLOAT_DTYPES),
    ("buffers", "buffer", FLOAT_DTYPES),
    ("fixed", "fixed", FIXED_DTYPES),
)


def _described(
    row: Fields, kind: Kind, dtypes: tuple[str, ...]
) -> tuple[str, tuple[tuple[int, ...], str, Kind]]:
    name, shape = row.text("name"), row.items("shape")
    if len(name) > MAX_NAME_LENGTH or len(shape) > MAX_DIMENSIONS:
        raise ValueError(f"tensor {name[:80]!r} has too long a name or too many dimensions")
    if not all(type(n) is int and 0 <= n <= MAX_FLAT_SIZE for n in shape):
        raise ValueError(f"tensor {name!r}: its shape must be whole numbers from 0 to {MAX_FLAT_SIZE}")
    return name, (shape, row.one_of("dtype", dtypes), kind)
