"""What a stored base and a stored revision are: small JSON blobs that name all other blobs.

A manifest's digest is the identity of what it describes: equal digests mean equal weights. Everything a
result depends on stands in it: the base, the layout, the fusion kind, the norm, the tie rule, the stored
dtype, the tasks in their order.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from store.errors import NotFoundError, UnsupportedFormatError
from store.parameters import ParameterSpace

FORMAT_VERSION = 1

RescalerNorm = Literal["global_l1", "tensor_mean_l1"]
UnifiedDtype = Literal["float32", "bfloat16", "int8", "int4"]


@dataclass(frozen=True)
class FusionOptions:
    """How a model fuses; fixed when the model is made, recorded in each of its manifests.

    Attributes:
        kind: The fusion kind's name.
        rescaler_norm: The norm of N and lambda (method: global_l1 is the paper's, tensor_mean_l1 the
            released code's).
        unified_dtype: How the unified delta is stored; lambda is computed against the stored values.
        tie_rule: The sign of a zero vote.
        accumulation: Dtypes of elementwise arithmetic and of norms.
    """

    kind: str = "condu"
    rescaler_norm: RescalerNorm = "global_l1"
    unified_dtype: UnifiedDtype = "float32"
    tie_rule: Literal["negative"] = "negative"
    accumulation: Literal["float32/float64"] = "float32/float64"


@dataclass(frozen=True)
class BaseManifest:
    """A stored base: its canonical safetensors blob and the layout of its tensors.

    Attributes:
        weights: Digest of the safetensors blob, tensors sorted by name, in the base's own dtypes.
        weights_xxh3: xxh3 (64 bit, hex) of the same bytes, checked each time the base is loaded.
        size_bytes: Bytes of that blob, header included.
        space: The tensors: which are fused and where, which are kept whole, which are fixed.
    """

    weights: str
    weights_xxh3: str
    size_bytes: int
    space: ParameterSpace

    def to_json(self) -> bytes:
        """Canonical bytes; their sha256 is the base's digest."""
        space = self.space.to_dict()
        return _canonical(
            "base", asdict(replace(self, space=_NO_SPACE)) | {"space": space, "layout": self.space.digest}
        )

    @classmethod
    def from_json(cls, content: bytes) -> "BaseManifest":
        """The base manifest that `to_json` wrote.

        Raises:
            UnsupportedFormatError: Another kind of document, or a newer format.
        """
        values = _parsed("base", content)
        space = ParameterSpace.from_dict(values["space"])
        return cls(values["weights"], values["weights_xxh3"], int(values["size_bytes"]), space)


_NO_SPACE = ParameterSpace((), (), ())


@dataclass(frozen=True)
class TaskEntry:
    """One task of a revision.

    Attributes:
        mask: Digest of the mask blob.
        rescaler: lambda, float64 (0 where the mask is empty).
        l1_norm: N, the norm of the task's original delta, float64.
        bits_set: Set bits of the mask.
        buffers: Digest of the float buffers that differ from the base's (safetensors), or None.
        prototypes: Digest of the prototype set (safetensors).
        classes: Class names in the order of the prototypes.
        templates: Prompt templates, each with one "{}".
    """

    name: str
    mask: str
    rescaler: float
    l1_norm: float
    bits_set: int
    buffers: str | None
    prototypes: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """An immutable revision of a model: base, unified delta and every task's trigger.

    Attributes:
        base: Digest of the base manifest.
        layout: Digest of the parameter space; every mask and unified delta records the same.
        num_parameters: Fused parameters, the denominator of every density.
        unified: Digest of the unified delta, or None while there is no task.
        parent: Digest of the manifest this one was made from.
    """

    base: str
    layout: str
    num_parameters: int
    options: FusionOptions
    unified: str | None
    tasks: tuple[TaskEntry, ...]
    parent: str | None

    def task(self, name: str) -> TaskEntry:
        """The named task; NotFoundError if this revision does not have it."""
        for task in self.tasks:
            if task.name == name:
                return task
        known = ", ".join(task.name for task in self.tasks) or "none yet"
        raise NotFoundError(f"task {name!r} is not in this revision; its tasks are: {known}")

    def expert_digest(self, name: str) -> str:
        """The identity of the task's expert, from what its weights depend on; costs no look at them."""
        task = self.task(name)
        parts = (
            self.base,
            self.options.kind,
            self.unified,
            task.mask,
            float(task.rescaler).hex(),
            task.buffers,
        )
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def named_blobs(self) -> frozenset[str]:
        """Digests of all blobs this revision needs, the base's manifest among them."""
        names = {self.base, self.unified}
        for task in self.tasks:
            names |= {task.mask, task.buffers, task.prototypes}
        return frozenset(name for name in names if name)

    def to_json(self) -> bytes:
        """Canonical bytes; their sha256 is the revision's digest."""
        return _canonical("revision", asdict(self))

    @classmethod
    def from_json(cls, content: bytes) -> "Manifest":
        """The manifest that `to_json` wrote.

        Raises:
            UnsupportedFormatError: Another kind of document, or a newer format.
        """
        values = _parsed("revision", content)
        tasks = tuple(
            TaskEntry(**{**row, "classes": tuple(row["classes"]), "templates": tuple(row["templates"])})
            for row in values["tasks"]
        )
        return cls(**{**values, "options": FusionOptions(**values["options"]), "tasks": tasks})


def _canonical(kind: str, values: Mapping[str, Any]) -> bytes:
    document = {"format": FORMAT_VERSION, "kind": kind, **values}
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    ).encode()


def _parsed(kind: str, content: bytes) -> dict[str, Any]:
    try:
        values = json.loads(content)
        found_kind, version = values.pop("kind"), values.pop("format")
    except (ValueError, AttributeError, KeyError) as error:
        raise UnsupportedFormatError(
            f"this blob is no manifest of a {kind}; pass the digest of one"
        ) from error
    if found_kind != kind or version != FORMAT_VERSION:
        raise UnsupportedFormatError(
            f"this is a {found_kind} manifest of format {version}; "
            f"expected a {kind} of format {FORMAT_VERSION}: upgrade condu"
        )
    return dict(values)
