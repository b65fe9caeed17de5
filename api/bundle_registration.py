"""Writes what a bundle brought into the catalog, in the caller's transaction."""

from collections.abc import Mapping
from dataclasses import dataclass

from api.schemas.bundles import BundleFacts, TaskFacts
from catalog import Session
from catalog.bases import BaseRecord, add_base
from catalog.blobs import NewBlob, record_blobs
from catalog.models import NewAdapter, create_model
from catalog.revisions import NewTask, NewTrigger, adopt_revision
from store.bundles import Imported, Index
from store.manifest import Manifest, TaskEntry
from vlm.architecture import Architecture
from vlm.preprocessing import Preprocessing


@dataclass(frozen=True)
class Arrival:
    """A bundle whose blobs are in the store, checked.

    Attributes:
        index: What it says of itself.
        facts: Its catalog section.
        architecture: What its base is built as.
        preprocessing: What is done to an image before it.
        imported: Its manifests, and the sizes of its blobs.
    """

    index: Index
    facts: BundleFacts
    architecture: Architecture
    preprocessing: Preprocessing
    imported: Imported


def register_base(session: Session, name: str, arrival: Arrival) -> BaseRecord:
    """The bundle's base, now registered; AlreadyExistsError where the name is taken."""
    manifest = arrival.imported.base
    record_blobs(session, [NewBlob(manifest.weights, manifest.size_bytes, "base")])
    return add_base(
        session,
        name=name,
        architecture=arrival.architecture.name,
        config=arrival.architecture.config,
        preprocessing=arrival.preprocessing.to_dict(),
        digest=arrival.index.base,
        layout=manifest.space.digest,
        num_parameters=manifest.space.num_parameters,
        size_bytes=manifest.size_bytes,
    )


def register_model(session: Session, name: str, arrival: Arrival, *, base: str) -> None:
    """Create the bundle's model on the base of that name, with its revision as the first and as the head.

    Raises:
        AlreadyExistsError: A model of that name exists.
        InvalidNameError: A task may not be called what it is called.
    """
    facts = arrival.facts.model
    create_model(
        session,
        name=name,
        base=base,
        adapter=_new_adapter(arrival),
        fusion=facts.fusion,
        rescaler_norm=facts.rescaler_norm,
        unified_dtype=facts.unified_dtype,
    )
    _record_adapter(session, arrival)
    manifest, sizes, head = arrival.imported.manifest, arrival.imported.sizes, arrival.index.head
    if manifest is None or head is None:
        return
    learned = [
        (
            _new_task(task, known, prototypes_bytes=sizes[task.prototypes]),
            _new_trigger(task, known, num_parameters=manifest.num_parameters, size_bytes=sizes[task.mask]),
        )
        for task, known in zip(manifest.tasks, arrival.facts.tasks, strict=True)
    ]
    adopt_revision(
        session,
        model=name,
        manifest=head,
        learned=learned,
        blobs=_new_blobs(head, manifest, sizes),
    )


def _new_adapter(arrival: Arrival) -> NewAdapter | None:
    adapter = arrival.imported.adapter
    if adapter is None or adapter.extends is None:
        return None
    return NewAdapter(arrival.index.learned_on, adapter.extends.rank, adapter.extends.seed)


def _record_adapter(session: Session, arrival: Arrival) -> None:
    adapter = arrival.imported.adapter
    if adapter is not None:
        record_blobs(session, [NewBlob(adapter.weights, adapter.size_bytes, "adapter")])


def _new_task(task: TaskEntry, known: TaskFacts, *, prototypes_bytes: int) -> NewTask:
    return NewTask(
        name=task.name,
        classes=task.classes,
        templates=task.templates,
        l1_norm=task.l1_norm,
        prototypes=task.prototypes,
        prototypes_bytes=prototypes_bytes,
        num_train=known.num_train,
        num_test=known.num_test,
        images_skipped=known.images_skipped,
        accuracy_individual=known.accuracy_individual,
        accuracy_expert=known.accuracy_expert,
        accuracy_base=known.accuracy_base,
        dataset=known.dataset,
        checkpoint=None,  # a kept checkpoint stays where it was learned
        training=known.training,
    )


def _new_trigger(task: TaskEntry, known: TaskFacts, *, num_parameters: int, size_bytes: int) -> NewTrigger:
    return NewTrigger(
        task=task.name,
        mask=task.mask,
        size_bytes=size_bytes,
        rescaler=task.rescaler,
        density=task.bits_set / num_parameters,
        bits_cleared=known.bits_cleared,
        relative_l2=known.relative_l2,
        cosine=known.cosine,
        reference=known.reference,
    )


def _new_blobs(head: str, manifest: Manifest, sizes: Mapping[str, int]) -> list[NewBlob]:
    """Every blob that the revision names, by kind."""
    kinds = {head: "manifest"}
    if manifest.unified is not None:
        kinds[manifest.unified] = "unified"
    for task in manifest.tasks:
        kinds |= {task.prototypes: "prototypes", task.mask: "mask"}
        if task.buffers is not None:
            kinds[task.buffers] = "buffers"
    return [NewBlob(digest, sizes[digest], kind) for digest, kind in kinds.items()]
