"""Takes a bundle in as a model, with its base where that is new; in the catalog all of it appears at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api.bundle_facts import read_facts
from api.bundle_registration import Arrival, register_base, register_model
from api.dependencies import Services
from api.schemas.bundles import BundleFacts
from catalog import Session
from catalog.bases import BaseRecord, list_bases
from catalog.errors import AlreadyExistsError, NoSuchRowError
from catalog.models import find_model
from catalog.names import check_name
from serving.pinning import base_ref
from store.bundles import BundleReader, Imported, import_bundle
from store.errors import InvalidBundleError, MissingBaseError
from store.parameters import ExpectedTensor
from vlm.adapters import INITIALISATION, SCALE_RULE, adapter_tensors
from vlm.architecture import Architecture, resolve_architecture
from vlm.bases import BaseRef
from vlm.errors import (
    InvalidLabelsError,
    InvalidPrototypesError,
    InvalidTemplatesError,
    UnknownArchitectureError,
)
from vlm.preprocessing import Preprocessing
from vlm.prompts import validate_labels, validate_templates
from vlm.prototypes import PrototypeSet

MAX_PROTOTYPE_BYTES = 256 * 2**20
"""A set is read whole; one of ten thousand classes at 1,024 dimensions takes about 40 MiB."""


@dataclass(frozen=True)
class BundleImport:
    """What became of a bundle: the model's name, whether its base is new, and the bundle's digest."""

    model: str
    base_is_new: bool
    bundle: str


@dataclass(frozen=True)
class _Plan:
    """An opened bundle, what its base is built as, and what its model (and a new base) is to be called."""

    bundle: BundleReader
    facts: BundleFacts
    architecture: Architecture
    preprocessing: Preprocessing
    model: str
    base: str


def import_model(services: Services, upload: Path, *, model: str | None, base: str | None) -> BundleImport:
    """Register the bundle's model, under its own name or the given one.

    Its base is the one that is here where digest, config and preprocessing agree; otherwise it is registered
    under its own name or the given one. Blobs are written first and named last, in one transaction: whatever
    fails leaves only leftovers that a sweep removes.

    Raises:
        InvalidBundleError: The bundle is damaged or hostile, or its parts do not belong together.
        MissingBaseError: It came without its base, which is not here.
        UnknownArchitectureError: Its base cannot be built here.
        AlreadyExistsError: The name of the model, or of a base that is new, is taken.
        InvalidNameError: A name may not be used.
        BlobsUnavailableError: The disk is full.
    """
    bundle = BundleReader(upload)
    plan = _plan(bundle, model=model, base=base)
    with services.catalog.snapshot() as session:
        known = _known_base(session, plan)
    expected = None if known else plan.architecture.expected_tensors()
    imported = import_bundle(
        services.store.blobs, bundle, expected=expected, expected_of_adapter=_adapter_tensors(plan)
    )
    _check_prototypes(services, imported, embed_dim=plan.architecture.embed_dim)
    arrival = Arrival(bundle.index, plan.facts, plan.architecture, plan.preprocessing, imported)
    with services.catalog.transaction() as session:
        # Asked again: others may have registered or removed something meanwhile.
        known = _known_base(session, plan)
        registered = known or register_base(session, plan.base, arrival)
        register_model(session, plan.model, arrival, base=registered.name)
    return BundleImport(plan.model, known is None, bundle.etag)


def _adapter_tensors(plan: _Plan) -> dict[str, ExpectedTensor] | None:
    """What the adapters of the bundle's model must be; None where it has none.

    Raises:
        InvalidBundleError: They are scaled or drawn by a rule that is unknown here.
        UnknownArchitectureError: The architecture has no layer for one.
    """
    extends = None if plan.bundle.adapter is None else plan.bundle.adapter.extends
    if extends is None:
        return None
    if (extends.scale, extends.initialisation) != (SCALE_RULE, INITIALISATION):
        raise InvalidBundleError(
            f"the adapters of the bundle's model are scaled by {extends.scale[:80]!r} and drawn by "
            f"{extends.initialisation[:80]!r}, which this version does not know: upgrade condu"
        )
    return adapter_tensors(plan.architecture, rank=extends.rank)


def check_model_free(session: Session, name: str) -> None:
    """Nothing, when a bundle's model could be registered under the name; ask before an upload, too.

    Raises:
        InvalidNameError: A model may not be called that.
        AlreadyExistsError: One is.
    """
    check_name(name, "model")
    try:
        find_model(session, name)
    except NoSuchRowError:
        return
    raise AlreadyExistsError(
        f"model {name!r} exists already: import the bundle under another name (`--name`, `?name=`), or "
        "remove that model first"
    )


def _known_base(session: Session, plan: _Plan) -> BaseRecord | None:
    """The base that is here already, by whatever name; None where the bundle's own can be registered.

    Raises:
        AlreadyExistsError: The name of the model, or of a base that is new, is taken.
        MissingBaseError: The bundle has no base, and no base here has its digest.
    """
    check_model_free(session, plan.model)
    digest = plan.bundle.index.base
    bases = list_bases(session)
    same_weights = [base for base in bases if base.digest == digest]
    if not same_weights and not plan.bundle.index.has_base:
        raise MissingBaseError(digest)
    # The same weights that are built or fed in another way are another function.
    same = [
        base
        for base in same_weights
        if _built_and_fed(base_ref(base)) == (plan.architecture.config, plan.preprocessing)
    ]
    if same:
        return next((base for base in same if base.name == plan.base), same[0])
    check_name(plan.base, "base")
    taken = next((base for base in bases if base.name == plan.base), None)
    if taken is not None:
        raise AlreadyExistsError(
            f"base {plan.base!r} exists already, with other weights or another architecture than the bundle's"
            f" (its digest is {taken.digest}): give the bundle's base another name (`--base`, `?base=`)"
        )
    return None


def _built_and_fed(base: BaseRef) -> tuple[dict[str, Any], Preprocessing]:
    return base.architecture.config, base.preprocessing


def _plan(bundle: BundleReader, *, model: str | None, base: str | None) -> _Plan:
    """What is to be done; the base's config and preprocessing are checked as a new base's are."""
    facts = read_facts(bundle)
    architecture = resolve_architecture(name=facts.base.architecture, config=facts.base.config)
    preprocessing = Preprocessing.from_dict(facts.base.preprocessing)
    size = architecture.preprocessing().size
    if preprocessing.size != size:
        raise UnknownArchitectureError(
            f"the image tower of the bundle's base takes {size[0]} x {size[1]} pixels, but its preprocessing "
            "makes others: export the bundle again"
        )
    names = (model or facts.model.name, base or facts.base.name)
    return _Plan(bundle, facts, architecture, preprocessing, *names)


def _check_prototypes(services: Services, imported: Imported, *, embed_dim: int) -> None:
    """Of each task, the names of its classes, its templates and its prototypes fit together and the base.

    Raises:
        InvalidBundleError: They do not.
    """
    for task in imported.manifest.tasks if imported.manifest else ():
        try:
            is_named = validate_labels(task.classes) == task.classes
            is_prompted = validate_templates(task.templates) == task.templates
            if imported.sizes[task.prototypes] > MAX_PROTOTYPE_BYTES:
                raise InvalidBundleError(f"the prototypes of task {task.name!r} are too large to be read")
            found = PrototypeSet.from_bytes(services.store.blobs.read(task.prototypes))
        except (InvalidLabelsError, InvalidTemplatesError, InvalidPrototypesError) as error:
            raise InvalidBundleError(f"task {task.name!r} of the bundle: {error}") from error
        fits = (found.classes, found.templates) == (task.classes, task.templates)
        if not (is_named and is_prompted and fits and found.vectors.shape[1] == embed_dim):
            raise InvalidBundleError(
                f"the classes, templates and prototypes of task {task.name!r} do not fit together: "
                "export the bundle again"
            )
