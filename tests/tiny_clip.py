"""Tiny CLIPs with seeded weights, for every room's tests: real architectures, real tokenizer, no download.

Most of their 1.7 million parameters are the token embedding: the built-in tokenizer needs its 49,408 entries.
"""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from store.safefile import write_safetensors
from vlm.architecture import resolve_architecture

_TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}

TINY_CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": _TEXT,
}

TINY_BATCHNORM_CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {
        "timm_model_name": "test_byobnet",
        "timm_pool": "",
        "timm_proj": "linear",
        "image_size": 32,
    },
    "text_cfg": _TEXT,
}
"""An image tower with BatchNorm: float buffers, and integer counters."""


def tiny_tensors(seed: int = 0, config: dict[str, Any] = TINY_CONFIG) -> dict[str, Tensor]:
    """A whole state dict; the same seed gives the same bits."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, expected in sorted(resolve_architecture(config=config).expected_tensors().items()):
        noise = torch.randn(expected.shape, generator=generator)
        if expected.kind == "fixed":
            tensors[name] = torch.zeros(expected.shape, dtype=torch.int64)
        elif name == "logit_scale":
            tensors[name] = torch.full(expected.shape, 4.6052)
        elif name.endswith("running_var"):
            tensors[name] = 1 + 0.1 * noise.abs()
        elif len(expected.shape) == 1 and name.endswith("weight"):
            tensors[name] = 1 + 0.1 * noise
        else:
            fan_in = math.prod(expected.shape[1:]) if len(expected.shape) > 1 else 100
            tensors[name] = noise / fan_in**0.5
    return tensors


def tiny_expert_tensors(base: dict[str, Tensor], seed: int, scale: float = 0.02) -> dict[str, Tensor]:
    """A fine-tuned state dict: the base plus seeded noise on all that training would move."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor
        + scale * tensor.std(correction=0).clamp(min=0.01) * torch.randn(tensor.shape, generator=generator)
        if tensor.is_floating_point() and name != "logit_scale" and "running_" not in name
        else tensor.clone()
        for name, tensor in sorted(base.items())
    }


def write_tiny_base(path: Path, seed: int = 0, config: dict[str, Any] = TINY_CONFIG) -> Path:
    """`path`, now a safetensors file with `tiny_tensors`."""
    write_safetensors(path, tiny_tensors(seed, config))
    return path


def tiny_image(seed: int, size: tuple[int, int] = (40, 48)) -> Image.Image:
    """A seeded RGB picture of (width, height) with large patches of colour."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize(size)


def image_bytes(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    """The encoded picture."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()
