"""Holds one revision for the whole of a request, so that nothing published meanwhile gets into its answer."""

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

import structlog

from catalog import Catalog, Session
from catalog.bases import BaseRecord, find_base
from catalog.errors import CatalogUnavailableError
from catalog.heads import HeadMark, find_head
from catalog.models import ModelRecord, find_model
from catalog.revisions import RevisionRecord, find_revision
from serving.errors import UnknownTaskError
from store.checkpoints import CheckpointStore
from store.manifest import BaseManifest, Manifest
from vlm.architecture import resolve_architecture
from vlm.bases import AdapterRef, BaseRef
from vlm.preprocessing import Preprocessing

MAX_KEPT = 256
"""Revisions kept ready; each is its manifest: some kilobytes a task."""

log = structlog.stdlib.get_logger("condu.serving")


@dataclass(frozen=True)
class PinnedRevision:
    """A model, its base, and one of its revisions; the last two are None while it has learned nothing.

    Attributes:
        ref: The base as the vision-language side knows it, with what the model's adapters start from.
    """

    model: ModelRecord
    base: BaseRecord
    ref: BaseRef
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

    def require_task(self, task: str) -> Manifest:
        """The manifest, which holds the task; UnknownTaskError when it does not."""
        if self.manifest is None or task not in self.task_names:
            raise UnknownTaskError(
                model=self.model.name, task=task, revision=self.number, known=self.task_names
            )
        return self.manifest


class Heads:
    """Finds which revision a request gets: the catalog's head as it is now, at the price of one query.

    What a head consists of never changes, so it is read once and kept. A catalog that does not answer stops
    nobody who asks a model that was asked before: the last head seen goes on answering, and says its number.

    Args:
        catalog: Says which revision is the head.
        store: Has the manifests.
    """

    def __init__(self, catalog: Catalog, store: CheckpointStore) -> None:
        self._catalog = catalog
        self._store = store
        self._lock = Lock()
        self._kept: OrderedDict[HeadMark, PinnedRevision] = OrderedDict()
        self._last: OrderedDict[tuple[str, int | None], HeadMark] = OrderedDict()

    def pin(self, model: str, number: int | None = None) -> PinnedRevision:
        """The model at that revision, or at its head.

        Raises:
            NoSuchRowError: No such model or revision, or the revision has expired.
            CatalogUnavailableError: The catalog does not answer, and this was not asked for before.
            StoreError: The manifest is gone or damaged.
        """
        try:
            with self._catalog.snapshot() as session:
                mark = find_head(session, model, number)
                found = None if mark is None else self._find(mark)
                if found is None:
                    found = self._read(session, model, number)
        except CatalogUnavailableError:
            with self._lock:
                mark = self._last.get((model, number))
            found = None if mark is None else self._find(mark)
            if found is None:
                raise
            log.warning(
                "the catalog does not answer; the last head seen does", model=model, revision=found.number
            )
            return found
        if mark is not None:
            self._keep(mark, found, number)
        return found

    def _find(self, mark: HeadMark) -> PinnedRevision | None:
        with self._lock:
            return self._kept.get(mark)

    def _keep(self, mark: HeadMark, found: PinnedRevision, number: int | None) -> None:
        with self._lock:
            self._kept[mark] = found
            self._kept.move_to_end(mark)
            self._last[mark.model, number] = mark
            self._last.move_to_end((mark.model, number))
            for kept in (self._kept, self._last):
                while len(kept) > MAX_KEPT:
                    kept.popitem(last=False)

    def _read(self, session: Session, model: str, number: int | None) -> PinnedRevision:
        record = find_model(session, model)
        base = find_base(session, record.base)
        has_none = record.head_revision is None and number is None
        revision = None if has_none else find_revision(session, record.name, number)
        manifest = self._store.manifest(revision.manifest) if revision else None
        return PinnedRevision(record, base, base_ref(base, record), revision, manifest)


def base_ref(base: BaseRecord, model: ModelRecord | None = None) -> BaseRef:
    """The base as the vision-language side knows it, with what the model's adapters start from."""
    return BaseRef(
        name=base.name,
        digest=base.digest,
        architecture=resolve_architecture(name=base.architecture, config=base.config),
        preprocessing=Preprocessing.from_dict(base.preprocessing),
        adapter=None if model is None else _adapter_ref(model),
    )


def base_manifest(store: CheckpointStore, digest: str) -> BaseManifest:
    """The layout of a stored base's tensors, without its weights."""
    return BaseManifest.from_json(store.blobs.read_checked(digest))


def _adapter_ref(model: ModelRecord) -> AdapterRef | None:
    if model.adapter is None or model.lora_rank is None or model.lora_seed is None:
        return None
    return AdapterRef(model.adapter, model.lora_rank, model.lora_seed)
