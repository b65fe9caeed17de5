"""An architecture: a name or a config in, and from it everything that depends on it alone."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import open_clip
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH
from torch import Tensor, nn

from store.errors import IncompatibleTensorsError
from store.parameters import ExpectedTensor, Kind
from vlm.architecture_config import check_config, image_size
from vlm.errors import UnknownArchitectureError
from vlm.preprocessing import Preprocessing
from vlm.skeleton import check_answers, skeleton
from vlm.tokenizer import Tokenizer, shared_tokenizer

FROZEN = ("logit_scale", "logit_bias")
"""Never trained, so that their delta is 0. The bias could not matter: it moves all logits alike."""

PREPROCESS_KEYS = ("mean", "std", "interpolation", "resize_mode", "fill_color")


@dataclass(frozen=True)
class Architecture:
    """A CLIP without its weights. Made by `resolve_architecture`.

    Attributes:
        name: open_clip's name for it, or a caller's; None when there is none.
        config: The whole open_clip model config with `preprocess_cfg`, JSON-able, known to be harmless.
    """

    name: str | None
    config: dict[str, Any]

    @cached_property
    def digest(self) -> str:
        """sha256 of the config without preprocessing; equal weights under two digests give two functions."""
        buildable = {key: value for key, value in self.config.items() if key != "preprocess_cfg"}
        return hashlib.sha256(json.dumps(buildable, sort_keys=True).encode()).hexdigest()

    @property
    def embed_dim(self) -> int:
        """Length of a feature."""
        return int(self.config["embed_dim"])

    def expected_tensors(self) -> dict[str, ExpectedTensor]:
        """Every entry that a state dict of this architecture has, and what the store does with it.

        Raises:
            UnknownArchitectureError: The config cannot be built, or builds a model that cannot answer.
        """
        model = skeleton(self.config)
        parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
        expected = {
            name: ExpectedTensor(tuple(tensor.shape), _kind(tensor, is_parameter=name in parameters))
            for name, tensor in model.state_dict().items()
        }
        check_answers(
            model,
            image_size=image_size(self.config["vision_cfg"]),
            context_length=self._context_length,
            embed_dim=self.embed_dim,
        )
        return expected

    def build(self, tensors: Mapping[str, Tensor]) -> nn.Module:
        """The model, in eval mode, whose weights ARE the given tensors: nothing is copied.

        Parameters require a gradient where open_clip's do, but for logit_scale and logit_bias. That is more
        than answering needs, but PyTorch multiplies by another route where weights require none, and answers
        are to equal plain open_clip's to the last bit. Who trains the model must give tensors of its own, and
        keeps eval mode, so that BatchNorm statistics stay the base's.

        Raises:
            IncompatibleTensorsError: A tensor is missing, unknown, or of another shape.
        """
        model = skeleton(self.config)
        self._check_tensors(model, tensors)
        model.load_state_dict(dict(tensors), strict=True, assign=True)
        for name, parameter in model.named_parameters():
            if name in FROZEN:
                parameter.requires_grad = False
        return model

    def _check_tensors(self, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
        expected = model.state_dict()
        remedy = f"give the whole state dict of {self.name or 'the architecture'}, and nothing else"
        for name in sorted(expected.keys() | tensors.keys()):
            wanted = str(tuple(expected[name].shape)) if name in expected else "no such tensor"
            got = str(tuple(tensors[name].shape)) if name in tensors else "nothing"
            if wanted != got:
                raise IncompatibleTensorsError(name, expected=wanted, got=got, remedy=remedy)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer its text tower was trained with; shared between callers."""
        options = self.config["text_cfg"].get("tokenizer_kwargs") or {}
        return shared_tokenizer(context_length=self._context_length, **options)

    @property
    def _context_length(self) -> int:
        return int(self.config["text_cfg"].get("context_length", DEFAULT_CONTEXT_LENGTH))

    def preprocessing(self) -> Preprocessing:
        """What to record with a new base: the config's own preprocessing at the image tower's size."""
        given = {key: value for key, value in self.config["preprocess_cfg"].items() if key in PREPROCESS_KEYS}
        return Preprocessing.from_dict({"size": list(image_size(self.config["vision_cfg"])), **given})


def list_architectures() -> tuple[str, ...]:
    """The names of open_clip that build without the network."""
    return tuple(name for name in open_clip.list_models() if not _needs_hub(open_clip.get_model_config(name)))


def resolve_architecture(*, name: str | None = None, config: Mapping[str, Any] | None = None) -> Architecture:
    """The architecture of that name or config; with both, the config decides and the name is a label.

    Raises:
        UnknownArchitectureError: An unknown name, or a config that cannot be built here.
    """
    if config is None:
        if name is None:
            raise UnknownArchitectureError("give the name of an open_clip architecture, or a config")
        name = canonical_name(name)
        config = {"preprocess_cfg": _published_preprocessing(name), **open_clip.get_model_config(name)}
    checked = check_config(config)
    checked["preprocess_cfg"] = _complete_preprocessing(checked)
    architecture = Architecture(name, checked)
    architecture.preprocessing()
    return architecture


def canonical_name(name: str) -> str:
    """open_clip's spelling of an architecture's name.

    Raises:
        UnknownArchitectureError: There is none of that name; hub and folder names are none.
    """
    spelled = name.replace("/", "-")
    by_lower_case = {known.lower(): known for known in open_clip.list_models()}
    found = spelled if spelled in by_lower_case.values() else by_lower_case.get(spelled.lower())
    if found is None:
        raise UnknownArchitectureError(
            f"open_clip {open_clip.__version__} has no architecture {name[:100]!r}; it has "
            f"{', '.join(list_architectures())}; or give a config"
        )
    return found


def _needs_hub(config: Mapping[str, Any]) -> bool:
    text = config["text_cfg"]
    return bool(text.get("hf_model_name") or text.get("hf_tokenizer_name"))


def _published_preprocessing(name: str) -> dict[str, Any]:
    """What all published weights of that name agree on; {} where they differ, or where there are none."""
    published = [get_pretrained_cfg(name, tag) for tag in list_pretrained_tags_by_model(name)]
    choices = [{key: each[key] for key in PREPROCESS_KEYS if key in each} for each in published]
    return choices[0] if choices and all(choice == choices[0] for choice in choices) else {}


def _complete_preprocessing(config: Mapping[str, Any]) -> dict[str, Any]:
    given = {key: value for key, value in config.get("preprocess_cfg", {}).items() if value is not None}
    size = image_size(config["vision_cfg"])
    if "size" in given and given["size"] not in (size[0], list(size), size):
        raise UnknownArchitectureError(
            f"preprocess_cfg.size is {given['size']}, but the image tower takes {size[0]} x {size[1]}; "
            "leave size out"
        )
    defaults = {"mean": OPENAI_DATASET_MEAN, "std": OPENAI_DATASET_STD, "interpolation": "bicubic"}
    kept = {key: given[key] for key in PREPROCESS_KEYS if key in given}
    if kept.get("interpolation") == "random":
        kept["interpolation"] = "bicubic"  # open_clip's meaning of it in evaluation
    merged = {**defaults, "resize_mode": "shortest", "fill_color": 0, **kept}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in merged.items()}


def _kind(tensor: Tensor, *, is_parameter: bool) -> Kind:
    if is_parameter:
        return "parameter"
    return "buffer" if tensor.is_floating_point() else "fixed"
