"""Published weights by open_clip's tags: the architecture they make, and the weights as safetensors."""

from pathlib import Path
from typing import Any

import torch
from open_clip.factory import load_checkpoint
from open_clip.pretrained import download_pretrained, get_pretrained_cfg, list_pretrained_tags_by_model
from torch import nn

from store.safefile import write_safetensors
from vlm.architecture import PREPROCESS_KEYS, Architecture, canonical_name, resolve_architecture
from vlm.errors import PretrainedUnavailableError, UnknownPretrainedError

TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")


def list_pretrained(name: str) -> tuple[str, ...]:
    """The tags under which weights of that architecture are published."""
    return tuple(list_pretrained_tags_by_model(canonical_name(name)))


def resolve_pretrained(name: str, tag: str) -> Architecture:
    """The architecture as those weights were trained: with their preprocessing, and their activation.

    open_clip only warns where a tag's QuickGELU does not match the architecture's; the answers are then
    wrong.

    Raises:
        UnknownArchitectureError: No such architecture, or one that needs a hub's tokenizer.
        UnknownPretrainedError: No such tag.
    """
    published = _published(name, tag)
    plain = resolve_architecture(name=name)
    preprocessing = {key: published[key] for key in PREPROCESS_KEYS if key in published}
    config = {
        **plain.config,
        "preprocess_cfg": preprocessing,
        "quick_gelu": bool(published.get("quick_gelu")),
    }
    return resolve_architecture(name=plain.name, config=config)


def fetch_pretrained(name: str, tag: str, into: Path) -> Path:
    """A safetensors file in the folder `into` that fits `resolve_pretrained(name, tag)`.

    Downloaded through open_clip, whose cache (and the hub's) is used first: what is there needs no network.

    Raises:
        UnknownPretrainedError: No such tag.
        PretrainedUnavailableError: The download failed, or brought what cannot be read without executing it.
    """
    architecture = resolve_pretrained(name, tag)
    checkpoint = _download(architecture, tag, _published(name, tag))
    return convert_checkpoint(architecture, checkpoint, into / f"{architecture.name}.{tag}.safetensors")


def convert_checkpoint(architecture: Architecture, checkpoint: Path, path: Path) -> Path:
    """`path`, now a published checkpoint's state dict in this architecture's names, as float32 safetensors.

    Raises:
        PretrainedUnavailableError: The checkpoint is of another kind or does not fit.
    """
    if checkpoint.suffix not in TORCH_SUFFIXES:
        raise PretrainedUnavailableError(
            f"{checkpoint.name} is no checkpoint that can be converted; give --weights"
        )
    model = _empty_model(architecture)
    try:
        load_checkpoint(model, str(checkpoint), strict=True, weights_only=True)
    except Exception as error:  # whatever torch, safetensors and open_clip raise on a file that does not fit
        raise PretrainedUnavailableError(
            f"{checkpoint.name} does not read as {architecture.name} without executing it ({error}); "
            "give the weights as a file with --weights FILE.safetensors"
        ) from error
    write_safetensors(path, {key: tensor.contiguous() for key, tensor in model.state_dict().items()})
    return path


def _published(name: str, tag: str) -> dict[str, Any]:
    known = canonical_name(name)
    published: dict[str, Any] = get_pretrained_cfg(known, tag)
    if not published:
        tags = ", ".join(list_pretrained(known)) or "none"
        raise UnknownPretrainedError(
            f"open_clip publishes no weights {tag[:100]!r} for {known}; it has: {tags}; "
            "or give --weights FILE.safetensors"
        )
    return published


def _download(architecture: Architecture, tag: str, published: dict[str, Any]) -> Path:
    try:
        return Path(download_pretrained(published))
    except Exception as error:  # the hub's client, urllib and open_clip each have errors of their own
        raise PretrainedUnavailableError(
            f"the weights {tag!r} of {architecture.name} could not be downloaded ({error}); "
            "check the network and try again, or give the weights as a file with --weights FILE.safetensors"
        ) from error


def _empty_model(architecture: Architecture) -> nn.Module:
    tensors = {
        name: torch.zeros(expected.shape, dtype=torch.int64 if expected.kind == "fixed" else torch.float32)
        for name, expected in architecture.expected_tensors().items()
    }
    return architecture.build(tensors)
