"""What a stored base and a stored revision are: small JSON blobs that name all other blobs.

A manifest's digest is the identity of what it describes: equal digests mean equal weights. Everything a
result depends on stands in it: the base, the layout, the fusion kind, the norm, the tie rule, the stored
dtype, the tasks in their order.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeVar, get_args

from store.errors import NotFoundError, UnsupportedFormatError
from store.parameters import ParameterSpace
from store.strict_json import Fields, canonical_json, parse_object

FORMAT_VERSION = 1
EXTENSION_FORMAT_VERSION = 2
"""Of a base that extends another one; such a base is all that version 2 adds."""

RescalerNorm = Literal["global_l1", "tensor_mean_l1"]
UnifiedDtype = Literal["float32", "bfloat16", "int8", "int4"]
TieRule = Literal["negative"]
Accumulation = Literal["float32/float64"]


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
    tie_rule: TieRule = "negative"
    accumulation: Accumulation = "float32/float64"


@dataclass(frozen=True)
class Extension:
    """What makes a base an extension: the base it is laid upon, and where its own values come from.

    The store keeps both together and uses nothing else of this. What the tensors do to the base that is
    extended, the room that made them knows.

    Attributes:
        base: Digest of the base manifest that is extended, which extends no other.
        rank: Of the adapters; one whose layer is small may have less.
        scale: The rule for what the product of an adapter's factors is multiplied with.
        initialisation: The rule by which the values were drawn.
        seed: What they were drawn from.
    """

    base: str
    rank: int
    scale: str
    initialisation: str
    seed: int


@dataclass(frozen=True)
class BaseManifest:
    """A stored base: its canonical safetensors blob and the layout of its tensors.

    Attributes:
        weights: Digest of the safetensors blob, tensors sorted by name, in the base's own dtypes.
        weights_xxh3: xxh3 (64 bit, hex) of the same bytes, checked each time the base is loaded.
        size_bytes: Bytes of that blob, header included.
        space: The tensors: which are fused and where, which are kept whole, which are fixed.
        extends: The base that this one is laid upon, if it is no model by itself.
    """

    weights: str
    weights_xxh3: str
    size_bytes: int
    space: ParameterSpace
    extends: Extension | None = None

    def to_json(self) -> bytes:
        """Canonical bytes; their sha256 is the base's digest."""
        values = {
            "weights": self.weights,
            "weights_xxh3": self.weights_xxh3,
            "size_bytes": self.size_bytes,
            "space": self.space.to_dict(),
            "layout": self.space.digest,
        }
        if self.extends is None:
            return _canonical("base", values)
        return _canonical(
            "base", values | {"extends": asdict(self.extends)}, version=EXTENSION_FORMAT_VERSION
        )

    @classmethod
    def from_json(cls, content: bytes) -> "BaseManifest":
        """The base manifest that `to_json` wrote.

        Raises:
            UnsupportedFormatError: Another kind of document, a newer format, or none that `to_json` writes.
        """
        return _parsed("base", content, _BASE_READERS)


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
            UnsupportedFormatError: Another kind of document, a newer format, or none that `to_json` writes.
        """
        return _parsed("revision", content, {FORMAT_VERSION: _manifest})


Document = TypeVar("Document", BaseManifest, Manifest)


def _canonical(kind: str, values: Mapping[str, Any], *, version: int = FORMAT_VERSION) -> bytes:
    return canonical_json({"format": version, "kind": kind, **values})


def _parsed(kind: str, content: bytes, readers: Mapping[int, Callable[[Fields], Document]]) -> Document:
    """The document, if its fields are what they should be and these bytes are the one way to write it."""
    try:
        fields = Fields(parse_object(content))
        found_kind, version = fields.text("kind"), fields.count("format")
    except ValueError as error:
        raise _no_manifest(kind, error) from error
    if found_kind != kind or version not in readers:
        known = " or ".join(str(number) for number in readers)
        raise UnsupportedFormatError(
            f"this is a {found_kind[:80]!r} manifest of format {version}; "
            f"expected a {kind} of format {known}: upgrade condu"
        )
    try:
        document = readers[version](fields)
        fields.end()
        if document.to_json() != content:
            raise ValueError("its values contradict each other, or are not written canonically")  # noqa: TRY301 - one remedy
    except ValueError as error:
        raise _no_manifest(kind, error) from error
    return document


def _no_manifest(kind: str, error: ValueError) -> UnsupportedFormatError:
    return UnsupportedFormatError(
        f"this blob is no manifest of a {kind}: {error}; pass the digest of one, or run `condu verify`"
    )


def _base_manifest(fields: Fields) -> BaseManifest:
    fields.digest("layout")  # formed anew and compared, as all that follows from the rest
    return BaseManifest(
        weights=fields.digest("weights"),
        weights_xxh3=fields.checksum("weights_xxh3"),
        size_bytes=fields.count("size_bytes"),
        space=ParameterSpace.from_dict(fields.values("space")),
    )


def _extending_manifest(fields: Fields) -> BaseManifest:
    extends = fields.fields("extends")
    extension = Extension(
        base=extends.digest("base"),
        rank=extends.count("rank", least=1),
        scale=extends.text("scale"),
        initialisation=extends.text("initialisation"),
        seed=extends.count("seed"),
    )
    extends.end()
    return replace(_base_manifest(fields), extends=extension)


_BASE_READERS: Mapping[int, Callable[[Fields], BaseManifest]] = {
    FORMAT_VERSION: _base_manifest,
    EXTENSION_FORMAT_VERSION: _extending_manifest,
}


def _manifest(fields: Fields) -> Manifest:
    num_parameters = fields.count("num_parameters")
    manifest = Manifest(
        base=fields.digest("base"),
        layout=fields.digest("layout"),
        num_parameters=num_parameters,
        options=_options(fields.fields("options")),
        unified=fields.optional_digest("unified"),
        tasks=tuple(_task(Fields(row), num_parameters) for row in fields.items("tasks")),
        parent=fields.optional_digest("parent"),
    )
    if len({task.name for task in manifest.tasks}) < len(manifest.tasks):
        raise ValueError("a task is in it twice")
    if manifest.tasks and manifest.unified is None:
        raise ValueError("it has tasks and no unified delta")
    return manifest


def _options(fields: Fields) -> FusionOptions:
    return FusionOptions(
        kind=fields.text("kind"),
        rescaler_norm=fields.one_of("rescaler_norm", get_args(RescalerNorm)),
        unified_dtype=fields.one_of("unified_dtype", get_args(UnifiedDtype)),
        tie_rule=fields.one_of("tie_rule", get_args(TieRule)),
        accumulation=fields.one_of("accumulation", get_args(Accumulation)),
    )


def _task(fields: Fields, num_parameters: int) -> TaskEntry:
    return TaskEntry(
        name=fields.text("name"),
        mask=fields.digest("mask"),
        rescaler=fields.measure("rescaler"),
        l1_norm=fields.measure("l1_norm"),
        bits_set=fields.count("bits_set", most=num_parameters),
        buffers=fields.optional_digest("buffers"),
        prototypes=fields.digest("prototypes"),
        classes=fields.texts("classes"),
        templates=fields.texts("templates"),
    )
