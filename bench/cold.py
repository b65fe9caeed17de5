"""Cold starts: an expert from a trigger on disk, against a whole fine-tuned checkpoint from the same disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench import page_cache
from bench.checks import check_equal
from bench.steps import Steps
from bench.timing import as_dicts, interleaved, num_runs
from store.parameters import ParameterSpace
from store.safefile import tensor_bytes

MOST_RESIDENT = 0.01  # of a file's pages, after they were dropped


class FullCheckpoint:
    """The ways in which safetensors can bring a checkpoint into a model whose memory is warm already."""

    def __init__(self, path: Path, model: nn.Module, space: ParameterSpace) -> None:
        self._path = path
        self._model = model
        self._parameters = dict(model.named_parameters())
        self._space = space

    def ways(self) -> dict[str, Callable[[], object]]:
        """Name -> one way, each leaving the checkpoint's values in the model's parameters."""
        return {
            "safetensors_load_file": self.load_file,
            "safetensors_safe_open": self.safe_open,
            "safetensors_load_bytes": self.load_bytes,
        }

    def load_file(self) -> None:
        """load_file, then load_state_dict."""
        from safetensors.torch import load_file

        self._model.load_state_dict(load_file(self._path))

    def safe_open(self) -> None:
        """Tensor by tensor, each copied into its parameter."""
        from safetensors import safe_open

        with safe_open(self._path, framework="pt") as file, torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(file.get_tensor(name))

    def load_bytes(self) -> None:
        """One sequential read, then safetensors' parser on the bytes, then copies."""
        from safetensors.torch import load

        with torch.no_grad():
            for name, tensor in load(self._path.read_bytes()).items():
                self._parameters[name].copy_(tensor)

    def read_in_place(self) -> None:
        """No library at all: the file's bytes straight into the parameters, as fast as the disk gives."""
        with self._path.open("rb", buffering=0) as file:
            size = int.from_bytes(file.read(8), "little")
            file.seek(8 + size)
            for spec in self._space.all_specs:
                rest = tensor_bytes(self._parameters[spec.name])
                while len(rest):
                    rest = rest[file.readinto(rest) :]


def measure_cold(
    rebuild: Callable[[], object],
    *,
    trigger: Path,
    full: FullCheckpoint,
    checkpoint: Path,
    repeats: int,
    steps: Steps,
) -> dict[str, Any]:
    """Times with the page cache dropped before every run, against the fastest of the peer's ways."""
    works = {"from_store": rebuild, "read_in_place": full.read_in_place, **full.ways()}
    paths = {name: trigger if name == "from_store" else checkpoint for name in works}
    most: dict[str, float] = dict.fromkeys(works, 0.0)

    def dropped(name: str) -> Callable[[], None]:
        def prepare() -> None:
            page_cache.drop(paths[name])
            most[name] = max(most[name], page_cache.resident_share(paths[name]))

        return prepare

    timings = interleaved(works, repeats=repeats, steps=steps, before={name: dropped(name) for name in works})
    fastest = min(full.ways(), key=lambda name: timings[name].median_s)
    size = checkpoint.stat().st_size
    return {
        "speedup_vs_full_load": timings[fastest].median_s / timings["from_store"].median_s,
        "fastest_peer": fastest,
        "timings": as_dicts(timings),
        "resident_share_before": most,
        "was_cold": max(most.values()) <= MOST_RESIDENT,
        "trigger_bytes": trigger.stat().st_size,
        "checkpoint_bytes": size,
        "disk_bytes_per_s": size / timings["read_in_place"].median_s,
    }


def num_cold_steps(repeats: int) -> int:
    """How many steps `measure_cold` takes."""
    return num_runs(5, repeats=repeats)


def check_loaded(full: FullCheckpoint, live: torch.Tensor, expected: torch.Tensor) -> None:
    """Each way of the peer leaves the checkpoint's weights in the model."""
    for name, way in {**full.ways(), "read_in_place": full.read_in_place}.items():
        live.zero_()
        way()
        check_equal(name, live, expected)
