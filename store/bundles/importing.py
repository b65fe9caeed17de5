"""Takes a foreign bundle's blobs in, and believes them only once each is hashed and the laws are kept."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from store.bases import check_base, check_finite
from store.blobs import Blobs
from store.bundles.documents import parse_base
from store.bundles.reader import BundleReader, check_digest_of
from store.errors import (
    BlobsUnavailableError,
    CorruptBlobError,
    InvalidBundleError,
    MissingBaseError,
    StoreError,
)
from store.manifest import BaseManifest, Manifest, TaskEntry
from store.parameters import ExpectedTensor, ParameterSpace
from store.safefile import dtype_name, parse_safetensors
from store.verify import check_laws

_MAX_HEADER_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Imported:
    """What a bundle brought in; until a catalog names it, its blobs are leftovers that a sweep removes.

    Attributes:
        base: The manifest of its base, which was here or came with it.
        manifest: The revision's manifest; None of a model that has learned nothing.
        sizes: Bytes of each blob of the bundle, by digest.
        adapter: The manifest of its adapters' initialisation; None of a model that tunes in full.
    """

    base: BaseManifest
    manifest: Manifest | None
    sizes: Mapping[str, int]
    adapter: BaseManifest | None = None


def import_bundle(
    blobs: Blobs,
    bundle: BundleReader,
    *,
    expected: Mapping[str, ExpectedTensor] | None,
    expected_of_adapter: Mapping[str, ExpectedTensor] | None = None,
) -> Imported:
    """Write all blobs of a bundle, each under its own digest, and check what they hold.

    Hashed, in one pass with the writing: every byte. Then: the base against its architecture, layouts against
    the base, of each task the set bits and lambda ||M u|| = N, and that every float is finite.

    Args:
        blobs: Where they go.
        bundle: The opened bundle.
        expected: What the base's architecture asks of its tensors; None where a base of this very digest and
            architecture is registered here, so that it was checked when it came.
        expected_of_adapter: What the adapters on that architecture are, where the bundle has some.

    Raises:
        InvalidBundleError: A blob is damaged, or holds what it must not.
        MissingBaseError: The bundle came without its base, and the base is not here.
        BlobsUnavailableError: The disk is full; nothing but leftovers was written.
    """
    index = bundle.index
    if not index.has_base and not blobs.contains(index.base):
        raise MissingBaseError(index.base)
    for entry in index.blobs:
        with blobs.writer() as writer:
            for piece in bundle.pieces(entry):
                writer.write(piece)
            check_digest_of(entry, writer.digest)
            writer.commit()
    with _as_invalid_bundle():
        base = parse_base(blobs.read_checked(index.base))
        if expected is not None:
            in_bundle = index.has_base
            values = bundle.mapped(bundle.entry(base.weights)) if in_bundle else blobs.read(base.weights)
            _check_base(values, base, digest=index.base, expected=expected)
        if bundle.adapter is not None:
            values = bundle.mapped(bundle.entry(bundle.adapter.weights))
            _check_base(values, bundle.adapter, digest=index.learned_on, expected=expected_of_adapter or {})
        if bundle.manifest is not None:
            _check_revision(blobs, bundle.manifest, (bundle.adapter or base).space)
    sizes = {entry.digest: entry.length for entry in index.blobs}
    return Imported(base, bundle.manifest, sizes, bundle.adapter)


def _check_base(
    values: memoryview, base: BaseManifest, *, digest: str, expected: Mapping[str, ExpectedTensor]
) -> None:
    """Nothing where the manifest, made anew from weights that nobody has checked before, is the same."""
    found = check_base(values, weights=base.weights, expected=expected, extends=base.extends)
    if found.digest != digest:
        raise InvalidBundleError(
            "the manifest of the bundle's base does not describe its weights: export it again"
        )


def _check_revision(blobs: Blobs, manifest: Manifest, space: ParameterSpace) -> None:
    if (manifest.layout, manifest.num_parameters) != (space.digest, space.num_parameters):
        raise CorruptBlobError("layout of the revision", expected=space.digest, found=manifest.layout)
    for task in manifest.tasks:
        if task.buffers is not None:
            _check_buffers(blobs, task, space)
    for problem in check_laws(blobs, space, manifest):
        raise InvalidBundleError(f"the bundle's revision breaks a law of its fusion: {problem}")


def _check_buffers(blobs: Blobs, task: TaskEntry, space: ParameterSpace) -> None:
    """The float buffers of a task are some of the base's, with its shapes and dtypes, and finite."""
    digest = str(task.buffers)
    if blobs.size_bytes(digest) > sum(spec.size_bytes for spec in space.buffers) + _MAX_HEADER_BYTES:
        raise InvalidBundleError(f"the buffers of task {task.name!r} are larger than those of the base")
    specs = {spec.name: (spec.shape, spec.dtype) for spec in space.buffers}
    for name, tensor in parse_safetensors(blobs.read(digest)).items():
        if specs.get(name) != (tuple(tensor.shape), dtype_name(tensor)):
            raise InvalidBundleError(f"buffer {name!r} of task {task.name!r} is not one of the base's")
        check_finite(name, tensor)


@contextmanager
def _as_invalid_bundle() -> Iterator[None]:
    """Whatever is wrong inside is the bundle's fault, not this store's; only its storage may still fail."""
    try:
        yield
    except (InvalidBundleError, BlobsUnavailableError):
        raise
    except CorruptBlobError as error:
        raise InvalidBundleError(
            f"{error.what} of the bundle: expected {error.expected}, found {error.found}; export it again"
        ) from error
    except StoreError as error:
        raise InvalidBundleError(f"the bundle cannot be used: {error}") from error
