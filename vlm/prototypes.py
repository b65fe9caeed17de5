"""Prototypes: where, in the base's own feature space, a task's classes lie (method.md section 2, step 5)."""

import json
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F  # noqa: N812  # PyTorch's own name for it
from jaxtyping import Float
from torch import Tensor, nn

from store.errors import InvalidUploadError
from store.safefile import header_bytes, parse_safetensors, tensor_bytes
from store.strict_json import Fields, parse_object
from vlm.errors import InvalidPrototypesError
from vlm.features import Batch, image_features, mean_text_features
from vlm.tokenizer import Tokenizer

FORMAT = "condu-prototypes-1"
_TENSOR = "prototypes"


@dataclass(frozen=True)
class PrototypeSet:
    """One unit vector a class.

    Attributes:
        classes: Their names.
        templates: The prompts' templates that went into the vectors.
        vectors: Row c belongs to classes[c]; float32 on the CPU, L2-normalised.
        num_images: Per class, the pictures that went in; 0 where text alone speaks.
    """

    classes: tuple[str, ...]
    templates: tuple[str, ...]
    vectors: Float[Tensor, "C D"]
    num_images: tuple[int, ...]

    def to_bytes(self) -> bytes:
        """A safetensors file; equal sets give equal bytes."""
        about = {"classes": self.classes, "templates": self.templates, "num_images": self.num_images}
        metadata = {"format": FORMAT, "about": json.dumps(about, sort_keys=True, separators=(",", ":"))}
        header = header_bytes([(_TENSOR, "float32", tuple(self.vectors.shape))], metadata)
        return header + bytes(tensor_bytes(self.vectors))

    @classmethod
    def from_bytes(cls, content: bytes | memoryview) -> Self:
        """The set that `to_bytes` wrote.

        Raises:
            InvalidPrototypesError: Another format, or values that cannot be prototypes.
        """
        # A copy: the bytes may be read-only or unmapped later, and a set is small.
        owned = memoryview(bytearray(content))
        try:
            tensors = parse_safetensors(owned)
            about = _about(owned)
        except (InvalidUploadError, ValueError, KeyError) as error:
            raise _invalid(f"they do not read: {error}") from error
        if set(tensors) != {_TENSOR} or tensors[_TENSOR].dtype != torch.float32:
            raise _invalid(f"they hold {sorted(tensors)} instead of one float32 tensor {_TENSOR!r}")
        found = cls(*about[:2], tensors[_TENSOR].clone(), about[2])
        found._check()
        return found

    def _check(self) -> None:
        shape = tuple(self.vectors.shape)
        if (
            len(shape) != 2
            or shape[0] != len(self.classes)
            or not len(self.classes) == len(self.num_images) > 0
        ):
            raise _invalid(
                f"vectors are {shape} and counts {len(self.num_images)} for {len(self.classes)} classes"
            )
        norms = self.vectors.norm(dim=1)
        if not torch.allclose(norms, torch.ones_like(norms), atol=1e-3):  # NaN fails too
            raise _invalid("their vectors are not unit vectors")


def _about(content: memoryview) -> tuple[tuple[str, ...], tuple[str, ...], tuple[int, ...]]:
    header_size = struct.unpack("<Q", content[:8])[0]
    metadata: dict[str, Any] = json.loads(bytes(content[8 : 8 + header_size]))["__metadata__"]
    if metadata["format"] != FORMAT:
        raise ValueError(f"format {metadata['format']!r}, not {FORMAT!r}; upgrade condu")
    about = Fields(parse_object(metadata["about"].encode()))
    classes, templates, counts = about.texts("classes"), about.texts("templates"), about.items("num_images")
    about.end()
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("num_images must be whole numbers >= 0")
    return classes, templates, counts


def _invalid(detail: str) -> InvalidPrototypesError:
    return InvalidPrototypesError(
        f"these bytes are no prototypes: {detail}; run `condu verify`, or learn the task again"
    )


@torch.inference_mode()
def compute_prototypes(
    model: nn.Module,
    tokenizer: Tokenizer,
    batches: Iterable[Batch] = (),
    *,
    classes: Sequence[str],
    templates: Sequence[str],
    on_progress: Callable[[int], None] | None = None,
) -> PrototypeSet:
    """Per class, normalise(mean image feature + mean text feature), each mean over L2-normalised features.

    A class without pictures has its text alone. Sums are float64.

    Args:
        model: The BASE, never an expert.
        tokenizer: The base's.
        batches: The pictures the task trained on, not augmented.
        classes: In the order of the batches' class numbers.
        templates: All of the task's.
        on_progress: Called with the number of pictures done.
    """
    text = mean_text_features(model, tokenizer, labels=classes, templates=templates).cpu().double()
    sums = torch.zeros_like(text)
    counts = torch.zeros(len(classes), dtype=torch.int64)
    for images, numbers in batches:
        sums.index_add_(0, numbers, image_features(model, images).cpu().double())
        counts += numbers.bincount(minlength=len(classes))
        if on_progress is not None:
            on_progress(int(counts.sum()))
    vectors = F.normalize(sums / counts.clamp(min=1)[:, None] + text, dim=-1).float()
    return PrototypeSet(tuple(classes), tuple(templates), vectors, tuple(counts.tolist()))
