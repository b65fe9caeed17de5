"""The JSON that describes an architecture: which values it may hold, read without trusting it.

The config comes from a request, and building is its execution: a layer count of a billion would hang the
service, a tokenizer's file name would open any file, a hub name would reach for the network. So: known keys
only, numbers in ranges that hold every architecture open_clip ships, and names from open_clip's and timm's
own lists.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import timm
from open_clip.coca_model import MultimodalCfg
from open_clip.model import CLIPTextCfg, CLIPVisionCfg

from vlm.errors import UnknownArchitectureError

VOCABULARY = 49_408
"""Entries of open_clip's built-in tokenizer; ids reach one less."""

SECTIONS = {"vision_cfg": CLIPVisionCfg, "text_cfg": CLIPTextCfg, "multimodal_cfg": MultimodalCfg}
TOP_KEYS = {
    "embed_dim",
    "quick_gelu",
    "custom_text",
    "init_logit_scale",
    "init_logit_bias",
    "nonscalar_logit_scale",
    "preprocess_cfg",
    *SECTIONS,
}
REQUIRED = ("embed_dim", "vision_cfg", "text_cfg")

LARGEST = {
    "layers": 256,
    "width": 16_384,
    "embed_dim": 16_384,
    "vocab_size": 1_000_000,
    "context_length": 1_024,
    "image_size": 4_096,
}
MAX_NUMBER = 65_536
MAX_PATCHES = 16_384

TOKENIZER_KWARGS = {"clean": ("lower", "whitespace", "canonicalize"), "reduction_mask": ("", "simple")}
"""What of the built-in tokenizer may be set: not its vocabulary file, nor reductions that draw lots."""

BUILD_OFFLINE = {"vision_cfg": {"timm_model_pretrained": False}, "text_cfg": {"hf_model_pretrained": False}}


def check_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the config in which every value is known to be harmless to build.

    Accepts an `open_clip_config.json` as the hub has it, `{model_cfg, preprocess_cfg}`, as well as a bare
    model config.

    Raises:
        UnknownArchitectureError: Names the key, what it may be, and what it is.
    """
    if not isinstance(config, Mapping):
        raise UnknownArchitectureError(
            f"an architecture config is a JSON object, not a {type(config).__name__}"
        )
    if "model_cfg" in config:
        _check_keys(config, {"model_cfg", "preprocess_cfg"}, "")
        if not isinstance(config["model_cfg"], Mapping):
            raise UnknownArchitectureError(f"model_cfg is a JSON object, not {config['model_cfg']!r}")
        config = {"preprocess_cfg": config.get("preprocess_cfg", {}), **config["model_cfg"]}
    _check_keys(config, TOP_KEYS, "")
    for key in REQUIRED:
        if key not in config:
            raise UnknownArchitectureError(f"the config has no {key!r}; it needs {', '.join(REQUIRED)}")
    checked = {key: _checked(key, value) for key, value in config.items()}
    _check_numbers(checked, "")
    _check_vision(checked["vision_cfg"])
    _check_text(checked["text_cfg"])
    return checked


def _checked(section: str, value: Any) -> Any:
    if section not in SECTIONS and section != "preprocess_cfg":
        return value
    if not isinstance(value, Mapping):
        raise UnknownArchitectureError(f"{section} is a JSON object, not {value!r}")
    if section in SECTIONS:
        _check_keys(value, {field.name for field in dataclasses.fields(SECTIONS[section])}, f"{section}.")
    offline = {name: off for name, off in BUILD_OFFLINE.get(section, {}).items() if name in value}
    return {**value, **offline}


def _check_keys(values: Mapping[str, Any], known: set[str], prefix: str) -> None:
    for key in values:
        if key not in known:
            raise UnknownArchitectureError(
                f"unknown config key {prefix + str(key)!r}; known are {', '.join(sorted(known))}"
            )


def _check_numbers(value: Any, path: str) -> None:
    """Every number in the tree is below what building it could choke on."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_numbers(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_numbers(inner, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        limit = LARGEST.get(path.rpartition(".")[2], MAX_NUMBER)
        if not -limit <= value <= limit:  # NaN fails too
            raise UnknownArchitectureError(f"{path} is {value}; at most {limit} can be built")


def _check_vision(vision: Mapping[str, Any]) -> None:
    timm_name = vision.get("timm_model_name")
    if timm_name is not None and (
        not isinstance(timm_name, str) or "/" in timm_name or ":" in timm_name or not timm.is_model(timm_name)
    ):
        raise UnknownArchitectureError(
            f"vision_cfg.timm_model_name {timm_name!r} is no model of timm {timm.__version__}; "
            "see timm.list_models()"
        )
    height, width = image_size(vision)
    patch = vision.get("patch_size")
    if patch is None:
        patch = CLIPVisionCfg.patch_size
    if not isinstance(patch, int) or not 0 < patch <= min(height, width):
        raise UnknownArchitectureError(
            f"vision_cfg.patch_size {patch!r} does not divide an image of {height} x {width}"
        )
    if (height // patch) * (width // patch) > MAX_PATCHES:
        raise UnknownArchitectureError(
            f"vision_cfg: {height} x {width} pixels in patches of {patch} are more than {MAX_PATCHES} patches"
        )


def image_size(vision: Mapping[str, Any]) -> tuple[int, int]:
    """(height, width) of the image tower's input."""
    size = vision.get("image_size", CLIPVisionCfg.image_size)
    edges = tuple(size) if isinstance(size, list | tuple) else (size, size)
    if len(edges) != 2 or not all(isinstance(edge, int) and edge > 0 for edge in edges):
        raise UnknownArchitectureError(
            f"vision_cfg.image_size {size!r} is neither a number of pixels nor two of them"
        )
    return edges[0], edges[1]


def _check_text(text: Mapping[str, Any]) -> None:
    for key in ("hf_model_name", "hf_tokenizer_name"):
        if text.get(key):
            raise UnknownArchitectureError(
                f"text_cfg.{key} is {text[key]!r}: text towers and tokenizers of the Hugging Face hub are "
                "not supported, because a stored model must build without the network; use one with "
                "open_clip's own tokenizer, such as ViT-B-32"
            )
    vocabulary = text.get("vocab_size", VOCABULARY)
    if not isinstance(vocabulary, int) or vocabulary < VOCABULARY:
        raise UnknownArchitectureError(
            f"text_cfg.vocab_size is {vocabulary!r}; open_clip's built-in tokenizer gives ids up to "
            f"{VOCABULARY - 1}, so it is at least {VOCABULARY}"
        )
    options = text.get("tokenizer_kwargs") or {}
    for key, value in options.items():
        if value not in TOKENIZER_KWARGS.get(key, ()):
            raise UnknownArchitectureError(
                f"text_cfg.tokenizer_kwargs.{key} is {value!r}; what can be set is {TOKENIZER_KWARGS}"
            )
