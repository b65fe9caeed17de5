"""LoRA (arXiv 2106.09685) as the method uses it: adapters on the wide layers, everything else frozen.

A layer of weight W answers with W + B A / sqrt(r); A is drawn once a model and B begins at 0, so that the
adapted base is exactly the base. The factors A and B are a parameter space of their own, and their frozen
initialisation is a stored base: fusion, masks and rebuilds act on it as on any other (method.md, section 2).
Adapters stand in files as `LAYER.lora_A.weight` [r, in] and `LAYER.lora_B.weight` [out, r], with two more
dimensions of 1 where the layer is a convolution. What they do follows from these names and shapes alone.
"""

import hashlib
import math
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from jaxtyping import Float
from torch import Tensor, nn

from store.bases import Base
from store.checkpoints import CheckpointStore
from store.errors import IncompatibleTensorsError
from store.manifest import Extension
from store.parameters import ExpectedTensor
from store.safefile import SafeFile, write_safetensors
from vlm.architecture import Architecture
from vlm.bases import AdapterRef, BaseRef
from vlm.errors import UnknownArchitectureError
from vlm.skeleton import skeleton

DEFAULT_RANK = 64
MAX_RANK = 4096
INITIALISATION = "kaiming-uniform/philox"
SCALE_RULE = "rank^-1/2"

_A, _B = ".lora_A.weight", ".lora_B.weight"
_TOWERS = ("visual.", "text.", "transformer.")
_MLP_LINEAR = re.compile(r"(.+\.)?mlp\.(c_fc|c_proj|fc1(_[gx])?|fc2)")


@dataclass(frozen=True)
class AdaptedLayer:
    """A layer with an adapter: its name, the shape of its weight, and the rank that fits it."""

    name: str
    weight_shape: tuple[int, ...]
    rank: int

    @property
    def factors(self) -> dict[str, tuple[int, ...]]:
        """The shapes of A and B by their names."""
        num_out, num_in, *ones = self.weight_shape
        return {
            self.name + _A: (self.rank, num_in, *ones),
            self.name + _B: (num_out, self.rank, *ones),
        }


def adapted_layers(architecture: Architecture, *, rank: int) -> tuple[AdaptedLayer, ...]:
    """The layers that get an adapter: both linear layers of every MLP, and pointwise convolutions of images.

    The rank of one is at most the largest r with r (in + out) <= in out, so that no adapter is larger than
    the weight it stands for.

    Raises:
        UnknownArchitectureError: The architecture has no such layer.
    """
    layers = []
    for name, module in skeleton(architecture.config).named_modules():
        if not name.startswith(_TOWERS) or not _is_adapted(name, module):
            continue
        shape = tuple(module.get_parameter("weight").shape)
        fitting = shape[0] * shape[1] // (shape[0] + shape[1])
        if fitting:
            layers.append(AdaptedLayer(name, shape, min(rank, fitting)))
    if not layers:
        raise UnknownArchitectureError(
            f"{architecture.name or 'the architecture'} has no layer that an adapter goes on (MLP layers "
            "c_fc, c_proj, fc1 and fc2, pointwise convolutions): make the model with full tuning"
        )
    return tuple(layers)


def adapter_tensors(architecture: Architecture, *, rank: int) -> dict[str, ExpectedTensor]:
    """Every tensor of an adapter of that rank; UnknownArchitectureError where there is no layer for one."""
    return {
        name: ExpectedTensor(shape, "parameter")
        for layer in adapted_layers(architecture, rank=rank)
        for name, shape in layer.factors.items()
    }


def make_adapter_base(store: CheckpointStore, base: BaseRef, *, rank: int, seed: int) -> AdapterRef:
    """The frozen initialisation that all tasks of a model share, now a stored base; the same one every time.

    Raises:
        UnknownArchitectureError: The architecture has no layer to adapt.
        BlobsUnavailableError: The disk is full.
    """
    expected = adapter_tensors(base.architecture, rank=rank)
    tensors = {
        name: _drawn(seed, name, want.shape) if name.endswith(_A) else torch.zeros(want.shape)
        for name, want in expected.items()
    }
    extension = Extension(base.digest, rank, SCALE_RULE, INITIALISATION, seed)
    with tempfile.TemporaryDirectory(prefix="condu-adapter-") as folder:
        path = Path(folder) / "initialisation.safetensors"
        write_safetensors(path, tensors)
        saved = store.save_base(path, expected, extends=extension)
    return AdapterRef(saved.digest, rank, seed)


def merge_adapter(
    ref: BaseRef,
    base: Base,
    space: Base,
    *,
    flat: Float[Tensor, " adapter"],
    out: Float[Tensor, " flat"] | None = None,
) -> Float[Tensor, " flat"]:
    """The flat weights of the base with an adapter merged in; a plain model, at a plain model's speed.

    Args:
        ref: The base and its adapter, for the messages.
        base: The pre-trained model; it is only read.
        space: The adapter's initialisation, whose layout `flat` has.
        flat: The adapter's factors, on the base's device.
        out: A buffer of the base's flat size to fill; a new one is made without it.

    Raises:
        IncompatibleTensorsError: The adapter is for another architecture.
    """
    return _merged(ref, base, space.space.views(flat), out=out)


def adapted_weights(factors: Mapping[str, Tensor]) -> dict[str, str]:
    """By the name of each adapted weight, in order: the name of its layer."""
    layers = sorted(name.removesuffix(_A) for name in factors if not name.endswith(_B))
    return {f"{layer}.weight": layer for layer in layers}


def merge_layer(
    ref: BaseRef, weights: Mapping[str, Tensor], factors: Mapping[str, Tensor], *, layer: str
) -> Tensor:
    """The layer's weight with its adapter: W + B A / sqrt(r), in float32.

    Raises:
        IncompatibleTensorsError: A factor does not fit the base (named).
    """
    weight, down, up = weights.get(f"{layer}.weight"), factors.get(layer + _A), factors.get(layer + _B)
    if weight is None or down is None or up is None or not _fits(weight, down=down, up=up):
        raise IncompatibleTensorsError(
            layer + _A,
            expected=f"one of the two factors of a layer of base {ref.name!r}",
            got="nothing" if down is None else f"shape {tuple(down.shape)}",
            remedy="use an adapter that was made on this base",
        )
    flat = torch.addmm(weight.reshape(len(weight), -1), up.flatten(1), down.flatten(1), alpha=_scale(down))
    return flat.view(weight.shape)


def _scale(down: Tensor) -> float:
    """What an adapter's product is multiplied with: 1 / sqrt(r)."""
    return 1 / math.sqrt(down.shape[0])


def build_fine_tuned(ref: BaseRef, base: Base, checkpoint: Path) -> nn.Module:
    """The model of a fine-tuned file, whole or an adapter's as the reference says; float32, in eval mode.

    Args:
        ref: What was fine-tuned.
        base: The pre-trained model itself, never an adapter's initialisation; read where there is an adapter.
        checkpoint: The file. A whole checkpoint's weights are mapped from it.

    Raises:
        IncompatibleTensorsError: The file is not of that base, or not of its adapter.
    """
    tensors = {
        name: tensor.to(torch.float32) if tensor.is_floating_point() else tensor
        for name, tensor in SafeFile(checkpoint).tensors().items()
    }
    if ref.adapter is None:
        return ref.architecture.build(tensors)
    factors = {name: tensor.to(base.flat.device) for name, tensor in tensors.items()}
    flat = _merged(ref, base, factors)
    buffers = {name: tensor.to(flat.device, torch.float32) for name, tensor in base.buffers.items()}
    fixed = {name: tensor.to(flat.device) for name, tensor in base.fixed.items()}
    return ref.architecture.build({**base.space.views(flat), **buffers, **fixed})


def attach_adapter(model: nn.Module, factors: Mapping[str, Tensor]) -> dict[str, nn.Parameter]:
    """Lay an adapter on a model for training: it alone is trained; returns its parameters by name.

    Each adapted layer gets its factors as layers of its own and adds what they answer, so that the product
    B A, which is as large as the weight, is never formed.

    Raises:
        IncompatibleTensorsError: The adapter is for another architecture.
    """
    model.requires_grad_(requires_grad=False)
    modules = dict(model.named_modules())
    for name in sorted(factors):
        if not name.endswith(_A):
            continue
        layer = name.removesuffix(_A)
        module, down, up = modules.get(layer), factors[name], factors.get(layer + _B)
        if module is None or up is None or not _fits(module.get_parameter("weight"), down=down, up=up):
            raise IncompatibleTensorsError(
                name,
                expected="the factors of a layer of the model's architecture",
                got=f"shape {tuple(down.shape)}",
                remedy="train the adapter that was made for this base",
            )
        _lay_on(module, down, up)
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _merged(ref: BaseRef, base: Base, factors: Mapping[str, Tensor], *, out: Tensor | None = None) -> Tensor:
    merged = torch.empty_like(base.flat) if out is None else out
    merged.copy_(base.flat)
    pristine, weights = base.space.views(base.flat), base.space.views(merged)
    for name, layer in adapted_weights(factors).items():
        value = merge_layer(ref, pristine, factors, layer=layer)
        weights[name].copy_(value)
    return merged


def _is_adapted(name: str, module: nn.Module) -> bool:
    if isinstance(module, nn.Linear):
        return _MLP_LINEAR.fullmatch(name) is not None
    is_pointwise = isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
    return is_pointwise and name.startswith("visual.")


def _fits(weight: Tensor, *, down: Tensor, up: Tensor) -> bool:
    num_out, num_in, *ones = weight.shape
    rank = down.shape[0]
    return tuple(down.shape) == (rank, num_in, *ones) and tuple(up.shape) == (num_out, rank, *ones)


def _drawn(seed: int, name: str, shape: tuple[int, ...]) -> Tensor:
    """Kaiming's uniform values as LoRA draws A: within 1 / sqrt(in), the same bits on every machine.

    24 bits of the counter-based generator Philox each; neither torch nor numpy promises the same values of
    its own distributions from one version to the next.
    """
    key = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16], "little")
    words = np.random.Philox(key=key).random_raw(math.prod(shape))
    steps = (words >> np.uint64(40)).astype(np.int64) - 2**23
    bound = np.float32(1 / math.sqrt(shape[1]))
    values = steps.astype(np.float32) * np.float32(2.0**-23) * bound
    return torch.from_numpy(values).view(shape)


def _lay_on(module: nn.Module, down: Tensor, up: Tensor) -> None:
    """Give the layer its two factors, and let it add what they answer."""
    scale = _scale(down)
    device = module.get_parameter("weight").device
    module.lora_A, module.lora_B = _Factor(down.to(device)), _Factor(up.to(device))

    def adapted(layer: Any, arguments: tuple[Tensor, ...], answer: Tensor) -> Tensor:
        first, second = layer.lora_A.weight, layer.lora_B.weight
        if not isinstance(layer, nn.Conv2d):
            return answer + scale * F.linear(F.linear(arguments[0], first), second)
        inner = F.conv2d(arguments[0], first, stride=layer.stride, padding=layer.padding)
        return answer + scale * F.conv2d(inner, second)

    module.register_forward_hook(adapted)


class _Factor(nn.Module):
    """One factor, as a parameter of its own that is trained from a copy of the given values."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(values.to(torch.float32, copy=True))
