"""Other people's packages, measured where they are installed and named where they are not."""

import contextlib
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]

INSTALL = {
    "zipnn": "pip install zipnn==0.5.4",
    "deltatensors": "pip install deltatensors==0.2.0",
}


def is_installed(package: str) -> bool:
    """Whether the peer can be measured here."""
    return find_spec(package) is not None


def missing(package: str) -> dict[str, str]:
    """What stands in the place of a peer's numbers where it is not installed."""
    return {"status": "not installed", "install": INSTALL[package]}


def zipnn_compressed(content: memoryview) -> bytes:
    """Float32 bytes, losslessly compressed by ZipNN; decompressed again and compared."""
    with _quiet():
        from zipnn import ZipNN

        coder = ZipNN(input_format="byte", bytearray_dtype="float32", threads=torch.get_num_threads())
        compressed = bytes(coder.compress(bytes(content)))
        restored = coder.decompress(compressed)
    assert bytes(restored) == bytes(content), "ZipNN gave other bytes back"
    return compressed


def save_wdelta(path: Path, *, fine_tuned: Tensors, base: Tensors) -> None:
    """A checkpoint as deltatensors keeps it: one sign bit an entry and a scale a row (lossy)."""
    with _quiet():
        import deltatensors

        deltatensors.save_delta(path, arrays(fine_tuned), arrays(base), strategy="quantized", use_gpu=False)


def load_wdelta(path: Path, base: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The checkpoint that deltatensors makes of its file and the base."""
    with _quiet():
        import deltatensors

        loaded: dict[str, np.ndarray] = deltatensors.load_delta(path, base)
    return loaded


def arrays(tensors: Tensors) -> dict[str, np.ndarray]:
    """Tensors as the numpy packages take them."""
    # A scalar has no rows, which deltatensors asks for.
    return {name: tensor.detach().reshape(tensor.shape or (1,)).numpy() for name, tensor in tensors.items()}


def numpy_rebuild(
    out: np.ndarray, *, base: np.ndarray, unified: np.ndarray, mask: np.ndarray, rescaler: float
) -> None:
    """The expert from packed bits with plain numpy: unpackbits, multiply, add, where."""
    bits = np.unpackbits(mask, count=len(base), bitorder="little").view(np.bool_)
    out[:] = np.where(bits, base + np.float32(rescaler) * unified, base)


class Sink(Protocol):
    """What torch.save writes to."""

    def write(self, content: Any, /) -> int:
        """Take the bytes."""

    def flush(self) -> None:
        """Nothing is kept back."""


@dataclass
class CountingSink:
    """A file that only counts, for sizes of what would take minutes to write."""

    size_bytes: int = 0

    def write(self, content: Any, /) -> int:
        """Count the bytes."""
        size = memoryview(content).nbytes
        self.size_bytes += size
        return size

    def flush(self) -> None:
        """Nothing is kept back."""


def torch_saved_bytes(state: Any) -> int:
    """Bytes that torch.save writes for this state."""
    sink = CountingSink()
    torch.save(state, sink)  # type: ignore[arg-type]
    return sink.size_bytes


@contextlib.contextmanager
def _quiet() -> Any:
    """The peers print to stdout, where only our results go, and warn at import."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
