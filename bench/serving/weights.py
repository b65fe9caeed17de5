"""The base that is served, and made fine-tunes of it: no training, the same bits for the same seed."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from store.parameters import ExpectedTensor
from vlm.architecture import Architecture, resolve_architecture

DELTA_SCALE = 0.05
"""Of a tensor's standard deviation: far enough that another expert's answer is told from the right one's."""
FROZEN = ("logit_scale", "logit_bias")


@dataclass(frozen=True)
class BaseWeights:
    """A base in single precision.

    Attributes:
        name: What it is called in the report.
        is_made: Whether the weights are random: speed does not depend on that.
    """

    name: str
    architecture: Architecture
    tensors: Mapping[str, Tensor]
    is_made: bool

    @property
    def num_parameters(self) -> int:
        """Numbers in its tensors."""
        return sum(tensor.numel() for tensor in self.tensors.values())


def read_base(folder: Path) -> BaseWeights:
    """The base in a folder as the demo ships it: base_config.json and base.safetensors."""
    config = json.loads((folder / "base_config.json").read_text())
    tensors = load_file(folder / "base.safetensors")
    whole = {
        name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    }
    return BaseWeights("demo", resolve_architecture(config=config), whole, is_made=False)


def make_base(*, name: str, config: Mapping[str, Any] | None = None, seed: int = 0) -> BaseWeights:
    """Random weights in an architecture of open_clip, or in one of a given config."""
    architecture = resolve_architecture(name=None if config else name, config=config)
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        tensor: _made(tensor, expected, generator)
        for tensor, expected in sorted(architecture.expected_tensors().items())
    }
    return BaseWeights(name, architecture, tensors, is_made=True)


def make_fine_tune(base: Mapping[str, Tensor], *, seed: int) -> dict[str, Tensor]:
    """The base with seeded noise on all that training would move."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor + DELTA_SCALE * _spread(tensor) * torch.randn(tensor.shape, generator=generator)
        if tensor.is_floating_point() and name not in FROZEN and "running_" not in name
        else tensor.clone()
        for name, tensor in sorted(base.items())
    }


def _spread(tensor: Tensor) -> Tensor:
    return tensor.std(correction=0).clamp(min=1e-3)


def _made(name: str, expected: ExpectedTensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(expected.shape, generator=generator)
    if expected.kind == "fixed":
        return torch.zeros(expected.shape, dtype=torch.int64)
    if name == "logit_scale":
        return torch.full(expected.shape, math.log(100))
    if name.endswith("running_var"):
        return 1 + 0.1 * noise.abs()
    if len(expected.shape) == 1 and name.endswith("weight"):
        return 1 + 0.1 * noise
    fan_in = math.prod(expected.shape[1:]) if len(expected.shape) > 1 else 100
    made: Tensor = noise / fan_in**0.5
    return made
