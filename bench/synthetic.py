"""Made models: the layout of a real CLIP, base weights, and deltas of tasks that have something in common.

What matters for size and speed is imitated: deltas are small and roughly Gaussian, of another scale in each
tensor and row; tasks agree on more signs than chance; the rows of the token embedding that no prompt uses,
the text positions behind the longest prompt and the frozen logit_scale have exact zeros.
"""

import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from store.parameters import ExpectedTensor, ParameterSpace, TensorSpec
from store.safefile import header_bytes, tensor_bytes

ARCHITECTURE = "ViT-B-32"
FULL_SIZE = 151_277_313
"""Parameters of that architecture; this size is its exact layout."""

_BASE, _SHARED, _SCALES, _WORDS = range(4)
_FIRST_TASK = 16  # streams below are the model's own


@dataclass(frozen=True)
class Recipe:
    """How deltas are made.

    Attributes:
        seed: Of every random stream.
        correlation: Between the deltas of two tasks, entry by entry. With .28, fusing 8 deltas in one shot
            leaves 71% of the mask bits set, as was published for 8 fine-tuned ViT-B/32.
        scale: Median standard deviation of an entry (AdamW at a rate of 1e-5 for 1000 iterations).
        tensor_spread: Standard deviation of the log of a tensor's scale.
        row_spread: The same for a row within its tensor.
        common_words: Share of the vocabulary that every task's prompts use.
        own_words: Share of the vocabulary that one task's class names use.
        positions: Text positions that a prompt reaches.
    """

    seed: int = 0
    correlation: float = 0.28
    scale: float = 2e-4
    tensor_spread: float = 0.4
    row_spread: float = 0.25
    common_words: float = 0.0005
    own_words: float = 0.006
    positions: int = 16


@lru_cache(maxsize=8)
def clip_space(num_parameters: int = FULL_SIZE) -> ParameterSpace:
    """The real architecture's parameter space, its tensors scaled to come near the number."""
    shapes = _real_shapes()
    low, high = 0.0, 4.0 * math.sqrt(max(num_parameters, 1) / FULL_SIZE) + 1.0
    for _ in range(50):
        factor = (low + high) / 2
        if _count(shapes, factor) < num_parameters:
            low = factor
        else:
            high = factor
    factor = 1.0 if num_parameters == FULL_SIZE else high
    return ParameterSpace.describe(
        {name: (_scaled(shape, factor), "float32", "parameter") for name, shape in shapes.items()}
    )


def expected_tensors(space: ParameterSpace) -> dict[str, ExpectedTensor]:
    """What a store asks of a base of this space."""
    return {spec.name: ExpectedTensor(spec.shape, "parameter") for spec in space.fused}


@lru_cache(maxsize=1)
def _real_shapes() -> dict[str, tuple[int, ...]]:
    from vlm.architecture import resolve_architecture

    expected = resolve_architecture(name=ARCHITECTURE).expected_tensors()
    return {name: tensor.shape for name, tensor in expected.items()}


def _scaled(shape: tuple[int, ...], factor: float) -> tuple[int, ...]:
    if len(shape) == 2:
        return tuple(max(round(n * factor), 1) for n in shape)
    exponent = 1 if len(shape) == 1 else 2  # a convolution's kernel stays, its channels take all of it
    return tuple(max(round(n * factor**exponent), 1) if i == 0 else n for i, n in enumerate(shape))


def _count(shapes: Mapping[str, tuple[int, ...]], factor: float) -> int:
    return sum(math.prod(_scaled(shape, factor)) for shape in shapes.values())


_Make = Callable[[int, TensorSpec], np.ndarray]


class SyntheticModel:
    """A base and the tasks fine-tuned from it; the same seed gives the same bits.

    Attributes:
        base: Flat base weights.
    """

    def __init__(self, space: ParameterSpace, recipe: Recipe | None = None) -> None:
        self.space = space
        self.recipe = recipe or Recipe()
        self.base = torch.zeros(space.flat_size)
        self._shared = torch.zeros(space.flat_size)
        self._each(self.base, self._base_values)
        self._each(self._shared, lambda index, spec: self._gaussian(_SHARED, index, spec))

    def checkpoint(self, task: int) -> Tensor:
        """The flat weights fine-tuned on this task."""
        flat = torch.zeros(self.space.flat_size)
        self._each(flat, lambda index, spec: self._task_values(task, index, spec))
        return flat.add_(self.base)

    def delta(self, task: int) -> Tensor:
        """The task's delta as float32 checkpoints give it: their difference, rounding and all."""
        return self.checkpoint(task).sub_(self.base)

    def _each(self, flat: Tensor, make: _Make) -> None:
        """Fill every tensor, each from its own stream, on all cores."""
        values = flat.numpy()

        def fill(index: int) -> None:
            spec = self.space.fused[index]
            values[spec.offset : spec.offset + spec.size] = make(index, spec)

        largest_first = sorted(range(len(self.space.fused)), key=lambda i: -self.space.fused[i].size)
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for _ in pool.map(fill, largest_first):
                pass

    def _stream(self, stream: int, index: int) -> np.random.Generator:
        return np.random.Generator(np.random.SFC64([self.recipe.seed, stream, index]))

    def _gaussian(self, stream: int, index: int, spec: TensorSpec) -> np.ndarray:
        return self._stream(stream, index).standard_normal(spec.size, dtype=np.float32)

    def _base_values(self, index: int, spec: TensorSpec) -> np.ndarray:
        values = self._gaussian(_BASE, index, spec)
        values *= np.float32(0.02)
        if "ln_" in spec.name and spec.name.endswith("weight"):
            values += np.float32(1.0)
        return values

    def _task_values(self, task: int, index: int, spec: TensorSpec) -> np.ndarray:
        if spec.name == "logit_scale":
            return np.zeros(spec.size, dtype=np.float32)
        shared = self._shared.numpy()[spec.offset : spec.offset + spec.size]
        width = math.prod(spec.shape[1:])
        rows = self._touched_rows(task, spec)
        scale = self._row_scales(index, spec)
        common = np.float32(math.sqrt(self.recipe.correlation))
        own = np.float32(math.sqrt(1.0 - self.recipe.correlation))
        out = np.zeros((spec.size // width, width), dtype=np.float32)
        picked = slice(None) if rows is None else rows
        noise = self._stream(_FIRST_TASK + task, index).standard_normal(out[picked].shape, dtype=np.float32)
        noise *= own
        noise += common * shared.reshape(-1, width)[picked]
        noise *= scale[picked, None]
        out[picked] = noise
        return out.reshape(-1)

    def _row_scales(self, index: int, spec: TensorSpec) -> np.ndarray:
        stream = self._stream(_SCALES, index)
        tensor = self.recipe.scale * math.exp(self.recipe.tensor_spread * stream.standard_normal())
        rows = spec.size // math.prod(spec.shape[1:])
        spread = stream.standard_normal(rows) * self.recipe.row_spread
        return (tensor * np.exp(spread)).astype(np.float32)

    def _touched_rows(self, task: int, spec: TensorSpec) -> np.ndarray | None:
        """Rows that the task's prompts reach; None for all of them."""
        if spec.name == "positional_embedding":
            return np.arange(min(self.recipe.positions, spec.shape[0]))
        if spec.name != "token_embedding.weight":
            return None
        num_words = spec.shape[0]
        common = np.arange(max(round(self.recipe.common_words * num_words), 1))
        count = max(round(self.recipe.own_words * num_words), 1)
        own = self._stream(_FIRST_TASK + task, _WORDS).choice(num_words, count, replace=False)
        return np.union1d(common, own)


def views(space: ParameterSpace, flat: Tensor) -> dict[str, Tensor]:
    """A flat buffer's tensors, whatever its dtype: the store's own views are of floats alone."""
    return {spec.name: flat[spec.offset : spec.offset + spec.size].view(spec.shape) for spec in space.fused}


def write_flat(path: Path, space: ParameterSpace, flat: Tensor) -> None:
    """A safetensors file of a flat buffer's tensors, which does not wait for the disk."""
    with path.open("wb") as file:
        file.write(header_bytes([(spec.name, spec.dtype, spec.shape) for spec in space.all_specs]))
        for view in space.views(flat).values():
            file.write(tensor_bytes(view))
