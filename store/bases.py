"""Bases: takes a foreign checkpoint in as a base, loads it back, and holds other checkpoints against it."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import torch
import xxhash
from jaxtyping import Float
from torch import Tensor

from store.blobs import Blobs
from store.errors import CorruptBlobError, IncompatibleTensorsError, InvalidUploadError
from store.manifest import BaseManifest, Extension
from store.parameters import TORCH_DTYPES, ExpectedTensor, Kind, ParameterSpace
from store.safefile import SafeFile, SafeHeader, header_bytes, parse_header, parse_safetensors, tensor_bytes

BASE_DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class SavedBase:
    """A base that was taken in: its digest, its manifest, and what its owner should know."""

    digest: str
    manifest: BaseManifest
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Base:
    """A base in memory. Nobody ever writes to these tensors: every expert is rebuilt from them.

    Attributes:
        flat: All fused tensors in float32, [space.flat_size], on the CPU unless it was moved.
        buffers: Float buffers by name, in the base's own dtypes.
        fixed: Integer and bool tensors by name.
    """

    digest: str
    manifest: BaseManifest
    flat: Float[Tensor, " flat"]
    buffers: dict[str, Tensor]
    fixed: dict[str, Tensor]

    @property
    def space(self) -> ParameterSpace:
        """The layout of its tensors."""
        return self.manifest.space


def save_base(
    blobs: Blobs, path: Path, expected: Mapping[str, ExpectedTensor], *, extends: Extension | None = None
) -> SavedBase:
    """Check a safetensors file against an architecture and keep it in canonical form.

    Args:
        blobs: Where it is kept.
        path: The file.
        expected: Its tensors, as the architecture has them.
        extends: What is recorded of the base that this one is laid upon.

    Raises:
        InvalidUploadError: The file is malformed or holds NaN or infinite values.
        IncompatibleTensorsError: A tensor is missing, extra, or of another shape or dtype than the
            architecture's.
    """
    file = SafeFile(path)
    space = _space(file.header, expected)
    specs = space.all_specs
    checksum = xxhash.xxh3_64()
    with blobs.writer() as writer:
        pieces = [memoryview(header_bytes([(spec.name, spec.dtype, spec.shape) for spec in specs]))]
        for spec in specs:
            tensor = file.tensor(spec.name)
            check_finite(spec.name, tensor)
            pieces.append(tensor_bytes(tensor))
            while pieces:
                piece = pieces.pop(0)
                checksum.update(piece)
                writer.write(piece)
        weights = writer.commit()
    manifest = BaseManifest(weights.digest, checksum.hexdigest(), weights.size_bytes, space, extends)
    return SavedBase(blobs.put(manifest.to_json()).digest, manifest, _precision_warnings(space))


def check_base(
    content: memoryview,
    *,
    weights: str,
    expected: Mapping[str, ExpectedTensor],
    extends: Extension | None = None,
) -> SavedBase:
    """What `save_base` gives for weights that are in canonical form already, after the same checks.

    Args:
        content: The weights' bytes, in writable memory.
        weights: Their digest.
        expected: What the architecture asks of them.
        extends: What is said of the base that this one is laid upon.

    Raises:
        InvalidUploadError: They are malformed, not in canonical form, or hold NaN or infinite values.
        IncompatibleTensorsError: A tensor is not the architecture's.
    """
    space = _space(parse_header(content), expected)
    header = header_bytes([(spec.name, spec.dtype, spec.shape) for spec in space.all_specs])
    if bytes(content[: len(header)]) != header:
        raise InvalidUploadError("the weights of the base are not in canonical form: register the base anew")
    for name, tensor in parse_safetensors(content).items():
        check_finite(name, tensor)
    manifest = BaseManifest(weights, xxhash.xxh3_64_hexdigest(content), len(content), space, extends)
    digest = hashlib.sha256(manifest.to_json()).hexdigest()
    return SavedBase(digest, manifest, _precision_warnings(space))


def load_base(blobs: Blobs, digest: str) -> Base:
    """The base in memory, its bytes checked against the manifest's xxh3.

    Raises:
        NotFoundError: There is no such base.
        CorruptBlobError: Its bytes are damaged.
    """
    manifest = BaseManifest.from_json(blobs.read_checked(digest))
    size = blobs.size_bytes(manifest.weights)
    if size != manifest.size_bytes:
        raise CorruptBlobError(
            f"weights of base {digest}", expected=f"{manifest.size_bytes} bytes", found=f"{size} bytes"
        )
    content = blobs.read(manifest.weights)
    found = xxhash.xxh3_64_hexdigest(content)
    if found != manifest.weights_xxh3:
        raise CorruptBlobError(f"weights of base {digest}", expected=manifest.weights_xxh3, found=found)
    tensors = parse_safetensors(content)
    _check_layout(manifest.space, tensors, f"weights of base {digest}")
    space = manifest.space
    return Base(
        digest=digest,
        manifest=manifest,
        flat=space.flatten(tensors),
        buffers={spec.name: tensors[spec.name].clone() for spec in space.buffers},
        fixed={spec.name: tensors[spec.name].clone() for spec in space.fixed},
    )


def _check_layout(space: ParameterSpace, tensors: Mapping[str, Tensor], what: str) -> None:
    """Nothing where these are the space's tensors; before memory is asked for on the word of a manifest."""
    expected = [(spec.name, spec.shape, TORCH_DTYPES[spec.dtype]) for spec in space.all_specs]
    found = [(name, tuple(tensors[name].shape), tensors[name].dtype) for name in sorted(tensors)]
    for want, got in zip_longest(expected, found):
        if want != got:
            raise CorruptBlobError(f"layout of {what}", expected=str(want), found=str(got))


def check_header(space: ParameterSpace, header: SafeHeader) -> None:
    """Hold a fine-tuned checkpoint's header against the base's layout.

    A float tensor may come in the base's own dtype or in float32, so that nothing is lost in rounding.

    Raises:
        IncompatibleTensorsError: Names the first tensor that is missing, extra, or of another shape or dtype.
    """
    remedy = "fine-tune from this base and save all of its tensors, and no others"
    if space.all_specs and not any(spec.name in header.tensors for spec in space.all_specs):
        remedy = (
            "none of the file's tensors is the base's: a model that learns adapters takes an adapter's file, "
            "any other a whole checkpoint"
        )
    _check_names({spec.name for spec in space.all_specs}, set(header.tensors), remedy)
    fixed = {spec.name for spec in space.fixed}
    for spec in space.all_specs:
        got = header.tensors[spec.name]
        if got.shape != spec.shape:
            raise IncompatibleTensorsError(
                spec.name, expected=f"shape {spec.shape}", got=f"{got.shape}", remedy=remedy
            )
        allowed = {spec.dtype} if spec.name in fixed else {spec.dtype, "float32"}
        if got.dtype not in allowed:
            wanted = " or ".join(sorted(allowed))
            raise IncompatibleTensorsError(
                spec.name,
                expected=f"dtype {wanted}",
                got=got.dtype,
                remedy=f"cast it to {spec.dtype} before saving",
            )


def read_delta(base: Base, file: SafeFile) -> tuple[Float[Tensor, " flat"], dict[str, Tensor]]:
    """The float32 delta of a checkpoint from its base, and the float buffers that differ from the base's.

    Raises:
        IncompatibleTensorsError: The tensors are not the base's, or an integer tensor differs.
        InvalidUploadError: A value is NaN or infinite, or the checkpoint's parameters equal the base's
            everywhere.
    """
    check_header(base.space, file.header)
    for spec in base.space.all_specs:
        check_finite(spec.name, file.tensor(spec.name))
    for spec in base.space.fixed:
        if not torch.equal(file.tensor(spec.name), base.fixed[spec.name]):
            raise IncompatibleTensorsError(
                spec.name,
                expected="the base's values (integer and bool tensors are not fused)",
                got="other values",
                remedy="keep this tensor as it is in the base",
            )
    delta = base.space.flatten({spec.name: file.tensor(spec.name) for spec in base.space.fused})
    delta.sub_(base.flat.to(delta.device))
    for name, view in base.space.views(delta).items():
        check_finite(name, view)
    if not delta.any():
        raise InvalidUploadError(
            "the checkpoint's parameters equal the base's everywhere, so there is nothing to learn from it; "
            "upload the fine-tuned weights, or train for more iterations or at a higher learning rate"
        )
    return delta, _changed_buffers(base, file)


def check_finite(name: str, tensor: Tensor) -> None:
    """Nothing where every value is finite.

    Raises:
        InvalidUploadError: Names the tensor and counts its NaN and infinite values.
    """
    if not tensor.is_floating_point():
        return
    if tensor.numel() == 0 or all(math.isfinite(extreme) for extreme in torch.aminmax(tensor)):
        return  # the extremes of a tensor with a NaN are NaN
    bad = int((~torch.isfinite(tensor)).sum())
    raise InvalidUploadError(
        f"tensor {name!r} has {bad} NaN or infinite values of {tensor.numel()}; "
        "the training diverged: lower its learning rate, or save from an earlier step"
    )


def _changed_buffers(base: Base, file: SafeFile) -> dict[str, Tensor]:
    changed = {}
    for spec in base.space.buffers:
        tensor = file.tensor(spec.name).to(base.buffers[spec.name].dtype)
        if not torch.equal(tensor, base.buffers[spec.name]):
            changed[spec.name] = tensor
    return changed


def _space(header: SafeHeader, expected: Mapping[str, ExpectedTensor]) -> ParameterSpace:
    remedy = "give the state dict of exactly this architecture, or name the right architecture"
    _check_names(set(expected), set(header.tensors), remedy)
    entries: dict[str, tuple[tuple[int, ...], str, Kind]] = {}
    for name, want in expected.items():
        got = header.tensors[name]
        if got.shape != want.shape:
            raise IncompatibleTensorsError(
                name, expected=f"shape {want.shape}", got=f"{got.shape}", remedy=remedy
            )
        if want.kind != "fixed" and got.dtype not in BASE_DTYPES:
            wanted = " or ".join(BASE_DTYPES)
            raise IncompatibleTensorsError(
                name, expected=wanted, got=got.dtype, remedy="cast it to float32 before saving"
            )
        if want.kind == "fixed" and got.dtype in (*BASE_DTYPES, "float64"):
            raise IncompatibleTensorsError(
                name, expected="an integer or bool dtype", got=got.dtype, remedy=remedy
            )
        entries[name] = (want.shape, got.dtype, want.kind)
    return ParameterSpace.describe(entries)


def _check_names(expected: set[str], got: set[str], remedy: str) -> None:
    if missing := sorted(expected - got):
        also = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise IncompatibleTensorsError(
            missing[0], expected="this tensor", got=f"nothing{also}", remedy=remedy
        )
    if extra := sorted(got - expected):
        also = f" (and {len(extra) - 1} more)" if len(extra) > 1 else ""
        raise IncompatibleTensorsError(
            extra[0], expected="no tensor of this name", got=f"one{also}", remedy=remedy
        )


def _precision_warnings(space: ParameterSpace) -> tuple[str, ...]:
    half = [spec for spec in space.fused if spec.dtype != "float32"]
    if not half:
        return ()
    warning = (
        f"{len(half)} of {len(space.fused)} tensors are {half[0].dtype}: deltas are kept in float32, but an "
        "expert downloaded in the base's dtype loses small changes; register it in float32 to avoid that"
    )
    return (warning,)
