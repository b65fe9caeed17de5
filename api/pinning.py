"""Holds one revision for the whole of a request, so that nothing published meanwhile gets into its answer."""

from dataclasses import dataclass

from api.dependencies import Services
from api.errors import UnknownTaskError
from catalog import Session
from catalog.bases import BaseRecord, find_base
from catalog.models import ModelRecord, find_model
from catalog.revisions import RevisionRecord, find_revision
from store.manifest import BaseManifest, Manifest
from vlm.architecture import resolve_architecture
from vlm.bases import AdapterRef, BaseRef
from vlm.preprocessing import Preprocessing


@dataclass(frozen=True)
class PinnedRevision:
    """A model, its base, and one of its revisions; the last two are None while it has learned nothing."""

    model: ModelRecord
    base: BaseRecord
    revision: RevisionRecord | None
    manifest: Manifest | None

    @property
    def number(self) -> int | None:
        """The number of the revision."""
        return self.revision.number if self.revision else None

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks that the revision serves, in the order they were learned."""
        return tuple(task.name for task in self.manifest.tasks) if self.manifest else ()

    @property
    def ref(self) -> BaseRef:
        """The base as the vision-language side knows it, with what the model's adapters start from."""
        return base_ref(self.base, self.model)

    def require_task(self, task: str) -> Manifest:
        """The manifest, which holds the task; UnknownTaskError when it does not."""
        if self.manifest is None or task not in self.task_names:
            raise UnknownTaskError(
                model=self.model.name, task=task, revision=self.number, known=self.task_names
            )
        return self.manifest


def pin_revision(services: Services, model: str, number: int | None = None) -> PinnedRevision:
    """The model at that revision, or at its head.

    Raises:
        NoSuchRowError: No such model or revision, or the revision has expired.
    """
    with services.catalog.snapshot() as session:
        record = find_model(session, model)
        base = find_base(session, record.base)
        revision = _revision(session, record, number)
    manifest = services.store.manifest(revision.manifest) if revision else None
    return PinnedRevision(record, base, revision, manifest)


def _revision(session: Session, model: ModelRecord, number: int | None) -> RevisionRecord | None:
    if model.head_revision is None and number is None:
        return None
    return find_revision(session, model.name, number)


def base_ref(base: BaseRecord, model: ModelRecord | None = None) -> BaseRef:
    """The base as the vision-language side knows it, with what the model's adapters start from."""
    return BaseRef(
        name=base.name,
        digest=base.digest,
        architecture=resolve_architecture(name=base.architecture, config=base.config),
        preprocessing=Preprocessing.from_dict(base.preprocessing),
        adapter=None if model is None else _adapter_ref(model),
    )


def base_manifest(services: Services, digest: str) -> BaseManifest:
    """The layout of a stored base's tensors, without its weights."""
    return BaseManifest.from_json(services.store.blobs.read_checked(digest))


def _adapter_ref(model: ModelRecord) -> AdapterRef | None:
    if model.adapter is None or model.lora_rank is None or model.lora_seed is None:
        return None
    return AdapterRef(model.adapter, model.lora_rank, model.lora_seed)
