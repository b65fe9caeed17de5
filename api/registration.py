"""Takes a safetensors file in as a base."""

from pathlib import Path

from api.dependencies import Services
from catalog.bases import BaseRecord, add_base, find_base
from catalog.blobs import NewBlob, record_blobs
from catalog.errors import AlreadyExistsError, NoSuchRowError
from catalog.names import check_name
from vlm.architecture import Architecture


def register_base(
    services: Services, name: str, *, architecture: Architecture, weights: Path
) -> tuple[BaseRecord, bool, tuple[str, ...]]:
    """The base, whether it is new, and what its owner should know.

    The same weights under the same name and architecture again are the base that is there already.

    Raises:
        InvalidUploadError: The file is malformed, or holds NaN or infinite values.
        IncompatibleTensorsError: A tensor is missing, extra or of another shape or dtype than the
        architecture's.
        AlreadyExistsError: The name belongs to another base.
    """
    check_name(name, "base")
    saved = services.store.save_base(weights, architecture.expected_tensors())
    with services.catalog.transaction() as session:
        try:
            found = find_base(session, name)
        except NoSuchRowError:
            added = add_base(
                session,
                name=name,
                architecture=architecture.name,
                config=architecture.config,
                preprocessing=architecture.preprocessing().to_dict(),
                digest=saved.digest,
                layout=saved.manifest.space.digest,
                num_parameters=saved.manifest.space.num_parameters,
                size_bytes=saved.manifest.size_bytes,
            )
            record_blobs(session, [NewBlob(saved.manifest.weights, saved.manifest.size_bytes, "base")])
            return added, True, saved.warnings
    if found.digest != saved.digest or found.config != architecture.config:
        raise AlreadyExistsError(
            f"base {name!r} exists already with other weights or another architecture (its digest is "
            f"{found.digest}, the upload's {saved.digest}): choose another name, or delete that base first"
        )
    return found, False, saved.warnings
