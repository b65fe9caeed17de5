"""The module tree of an architecture without weights: parameters on the meta device, computed buffers real.

Building under `torch.device("meta")` would do for the parameters, but leaves every non-persistent buffer
(attention masks, relative positions, rotary tables) without values that no checkpoint brings, and breaks
towers that compute with numbers while they are built. So the tree is built on the CPU, and each parameter
goes to meta as it is registered.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import lru_cache
from typing import Any

import torch
from open_clip import CLIP, CoCa, CustomTextCLIP
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode

from vlm.errors import UnknownArchitectureError

_RANDOM_FILLS = {
    torch.ops.aten.normal_.default,
    torch.ops.aten.uniform_.default,
    torch.ops.aten.erfinv_.default,
}

_BUILD_LOCK = threading.Lock()
"""Two requests for a new architecture build it once."""


def skeleton(config: dict[str, Any]) -> nn.Module:
    """A fresh module tree for the config, in eval mode: parameters on meta, buffers on the CPU.

    Raises:
        UnknownArchitectureError: open_clip refuses the config.
    """
    buildable = {key: value for key, value in config.items() if key != "preprocess_cfg"}
    with _BUILD_LOCK:
        pristine = _pristine_skeleton(json.dumps(buildable, sort_keys=True))
    return deepcopy(pristine)


def check_answers(
    model: nn.Module, *, image_size: tuple[int, int], context_length: int, embed_dim: int
) -> None:
    """Nothing where both towers take their inputs and give features of one length; no value is computed.

    Many a config builds a model that fails on its first image: a tower made for another size, or another
    length of features than the other tower's.

    Raises:
        UnknownArchitectureError: The config's parts do not fit each other.
    """
    try:
        with torch.no_grad():
            towers: Any = model.to("meta")
            picture = towers.encode_image(torch.zeros(1, 3, *image_size, device="meta"))
            prompt = towers.encode_text(torch.zeros(1, context_length, dtype=torch.int64, device="meta"))
    except Exception as error:
        raise _unbuildable(error) from error
    for tower, features in (("image", picture), ("text", prompt)):
        if tuple(features.shape) != (1, embed_dim):
            raise UnknownArchitectureError(
                f"the config's {tower} tower gives features of shape {tuple(features.shape)} for one input; "
                f"embed_dim asks for (1, {embed_dim})"
            )


@lru_cache(maxsize=8)
def _pristine_skeleton(config_json: str) -> nn.Module:
    config = json.loads(config_json)
    try:
        # Towers draw random values while they are built, which a training in this process must not see; and
        # buffers made while a request is answered must serve a training too.
        with torch.random.fork_rng(devices=[]), torch.inference_mode(mode=False):
            return _build(config).eval()
    except Exception as error:  # open_clip and timm raise whatever an impossible value leads to
        raise _unbuildable(error) from error


def _unbuildable(error: Exception) -> UnknownArchitectureError:
    return UnknownArchitectureError(
        f"open_clip cannot build this config ({type(error).__name__}: {error}); "
        "compare it with the one of a built-in architecture"
    )


def _build(config: dict[str, Any]) -> nn.Module:
    try:
        with _parameters_on_meta():
            return _construct(config)
    except RuntimeError as error:
        if "meta" not in str(error):
            raise
    # Hybrid towers (ViTamin, MobileCLIP-B) run themselves once to learn a shape, with weights of some value.
    with _NothingDrawn():  # type: ignore[no-untyped-call]
        model = _construct(config)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            module.register_parameter(name, _on_meta(parameter))
    return model


def _construct(config: dict[str, Any]) -> nn.Module:
    arguments = deepcopy(config)
    if not arguments.pop("custom_text", False):
        arguments.pop("multimodal_cfg", None)
        return CLIP(**arguments)  # type: ignore[no-any-return]
    if "multimodal_cfg" in arguments:
        return CoCa(**arguments)  # type: ignore[no-any-return]
    return CustomTextCLIP(**arguments)  # type: ignore[no-any-return]


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Parameters that this thread registers lose their values; other threads' are left alone.

    The hook itself is global to the process.
    """
    builder = threading.get_ident()

    def to_meta(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if parameter is None or parameter.is_meta or threading.get_ident() != builder:
            return None
        return _on_meta(parameter)

    # The stub knows hooks that return None only; the document says that what a hook returns is registered.
    handle = register_module_parameter_registration_hook(to_meta)  # type: ignore[arg-type]
    try:
        yield
    finally:
        handle.remove()


class _NothingDrawn(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Random fills do nothing: drawing a large model's initial weights takes most of a minute."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _RANDOM_FILLS:
            return args[0]
        return func(*args, **(kwargs or {}))


def _on_meta(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
