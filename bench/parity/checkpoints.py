"""The base and the fine-tuned checkpoints that the store and the formulas are both given."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from bench.errors import BenchError
from bench.parity.formulas import Delta
from store.bases import Base, check_header, read_delta
from store.blobs.memory import MemoryBlobs
from store.checkpoints import CheckpointStore
from store.errors import StoreError
from store.experts import UnifiedDelta
from store.manifest import Manifest
from store.parameters import FLOAT_DTYPES, ExpectedTensor, Kind
from store.safefile import SafeFile, read_header

_STATISTICS = ("running_mean", "running_var")
"""BatchNorm's buffers, by the names that torch gives them: a file does not say which tensors are trained."""


@dataclass(frozen=True)
class Checkpoints:
    """A base in a store of its own, in memory, and fine-tunes of it in the order of learning."""

    store: CheckpointStore
    base: Base
    files: dict[str, Path]

    @classmethod
    def open(cls, base: Path, folder: Path) -> "Checkpoints":
        """All `*.safetensors` of the folder, in the order of their names, checked against the base.

        Raises:
            BenchError: A file is missing, malformed or no fine-tune of the base (named), or there are fewer
                than two fine-tunes.
        """
        if not folder.is_dir():
            raise BenchError(f"{folder} is no folder", remedy="name the folder of the fine-tuned checkpoints")
        files = {path.stem: path for path in sorted(folder.glob("*.safetensors"))}
        if len(files) < 2:
            raise BenchError(
                f"{folder} holds {len(files)} files named *.safetensors",
                remedy="give at least two fine-tuned checkpoints, one a task, in one folder",
            )
        store = CheckpointStore(MemoryBlobs())
        try:
            loaded = store.load_base(store.save_base(base, _expected(base)).digest)
        except (StoreError, OSError) as error:
            raise BenchError(
                f"the base {base} cannot be used: {error}", remedy="give the safetensors file of the base"
            ) from error
        for path in files.values():
            try:
                check_header(loaded.space, read_header(path))
            except (StoreError, OSError) as error:
                raise _no_fine_tune(path, error) from error
        return cls(store, loaded, files)

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks, named after the files."""
        return tuple(self.files)

    def delta(self, name: str) -> Delta:
        """The task's original delta, tensor by tensor.

        Raises:
            BenchError: A value is not finite, or the checkpoint equals the base.
        """
        try:
            flat, _ = read_delta(self.base, SafeFile(self.files[name]))
        except (StoreError, OSError) as error:
            raise _no_fine_tune(self.files[name], error) from error
        return self._by_tensor(flat)

    def served(self, manifest: Manifest, name: str, unified: UnifiedDelta) -> Delta:
        """The delta of the task's expert as the store rebuilds it, tensor by tensor."""
        rebuilt = self.store.rebuild(self.base, manifest, name, unified=unified)
        return self._by_tensor(rebuilt.flat - self.base.flat)

    def _by_tensor(self, flat: Tensor) -> Delta:
        return {name: view.reshape(-1).numpy() for name, view in self.base.space.views(flat).items()}


def _expected(path: Path) -> dict[str, ExpectedTensor]:
    def kind(name: str, dtype: str) -> Kind:
        if dtype not in FLOAT_DTYPES:
            return "fixed"
        return "buffer" if name.endswith(_STATISTICS) else "parameter"

    tensors = read_header(path).tensors
    return {name: ExpectedTensor(entry.shape, kind(name, entry.dtype)) for name, entry in tensors.items()}


def _no_fine_tune(path: Path, error: Exception) -> BenchError:
    return BenchError(
        f"{path} is no fine-tuned checkpoint of the base: {error}",
        remedy="leave only whole checkpoints that were fine-tuned from --base in the folder",
    )
