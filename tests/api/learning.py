"""Teaches a model without a worker: the same store and catalog calls that a job ends with."""

from collections.abc import Sequence
from pathlib import Path

from api.dependencies import Services
from catalog.bases import find_base
from catalog.blobs import NewBlob
from catalog.models import find_model
from catalog.revisions import NewTask, NewTrigger, find_revision, publish_revision
from serving.pinning import base_ref
from store.checkpoints import FoldOutcome
from store.checkpoints import NewTask as TaskToFold
from store.manifest import FusionOptions
from store.safefile import write_safetensors
from tests.tiny_clip import tiny_expert_tensors, tiny_tensors
from vlm.prototypes import compute_prototypes

TEMPLATES = ("a photo of a {}.",)


def write_fine_tuned(path: Path, seed: int) -> Path:
    """`path`, now a checkpoint fine-tuned from the tiny base."""
    write_safetensors(path, tiny_expert_tensors(tiny_tensors(), seed))
    return path


def learn(services: Services, model: str, task: str, *, classes: Sequence[str], checkpoint: Path) -> int:
    """The number of the revision that holds the task."""
    with services.catalog.snapshot() as session:
        record = find_model(session, model)
        base = base_ref(find_base(session, record.base), record)
        parent = find_revision(session, model) if record.head_revision else None
    with services.pool.lease(base, None, None) as expert:
        prototypes = compute_prototypes(
            expert.model, expert.tokenizer, (), classes=tuple(classes), templates=TEMPLATES
        )
    blob = services.store.blobs.put(prototypes.to_bytes())
    outcome = services.store.fold(
        services.store.load_base(base.learned_on),
        parent=parent.manifest if parent else None,
        options=FusionOptions(rescaler_norm=record.rescaler_norm, unified_dtype=record.unified_dtype),
        new_task=TaskToFold(task, tuple(classes), TEMPLATES, blob.digest),
        checkpoint=checkpoint,
    )
    with services.catalog.transaction() as session:
        return publish_revision(
            session,
            model=model,
            parent=parent.number if parent else None,
            manifest=outcome.manifest_digest,
            cause="train",
            triggers=_triggers(outcome),
            blobs=[NewBlob(blob.digest, blob.size_bytes, "prototypes")],
            task=NewTask(
                name=task,
                classes=tuple(classes),
                templates=TEMPLATES,
                l1_norm=outcome.tasks[task].l1_norm,
                prototypes=blob.digest,
                prototypes_bytes=blob.size_bytes,
                num_train=8,
                num_test=2,
                images_skipped=1,
                accuracy_individual=90.0,
                accuracy_expert=87.5,
                accuracy_base=50.0,
                training={"iterations": 10},
            ),
        )


def _triggers(outcome: FoldOutcome) -> list[NewTrigger]:
    return [
        NewTrigger(
            task=entry.name,
            mask=entry.mask,
            size_bytes=outcome.trigger_bytes[entry.name],
            rescaler=outcome.tasks[entry.name].rescaler,
            density=outcome.tasks[entry.name].density,
            bits_cleared=outcome.tasks[entry.name].bits_cleared,
            relative_l2=outcome.tasks[entry.name].relative_l2,
            cosine=outcome.tasks[entry.name].cosine,
            reference=outcome.tasks[entry.name].reference,
        )
        for entry in outcome.manifest.tasks
    ]
