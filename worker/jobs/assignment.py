"""One job in this worker's hands: what is asked, of which model and base, and how progress is told."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from catalog import Session
from catalog.attempts import published_revision
from catalog.bases import find_base
from catalog.job_queue import JobContext
from catalog.jobs import JobRecord, find_job
from catalog.models import ModelRecord, find_model
from catalog.revisions import RevisionRecord, find_revision
from catalog.tasks import head_tasks
from store.manifest import FusionOptions, RescalerNorm, UnifiedDtype
from vlm.architecture import resolve_architecture
from vlm.bases import AdapterRef, BaseRef
from vlm.preprocessing import Preprocessing
from worker.workbench import Workbench


@dataclass(frozen=True)
class Assignment:
    """A job with all that its row refers to."""

    context: JobContext
    bench: Workbench
    job: JobRecord
    model: ModelRecord
    base: BaseRef

    @property
    def folder(self) -> Path:
        """The job's scratch folder."""
        return self.bench.scratch(self.job.job_id)

    @property
    def fusion_options(self) -> FusionOptions:
        """How the model fuses."""
        return FusionOptions(
            kind=self.model.fusion,
            rescaler_norm=cast("RescalerNorm", self.model.rescaler_norm),
            unified_dtype=cast("UnifiedDtype", self.model.unified_dtype),
        )

    def published(self) -> int | None:
        """The revision that this job has published, in whichever attempt."""
        with self.context.catalog.snapshot() as session:
            return published_revision(session, self.job.job_id)

    def head(self) -> RevisionRecord | None:
        """The model's head now; None while it has learned nothing."""
        with self.context.catalog.snapshot() as session:
            if find_model(session, self.model.name).head_revision is None:
                return None
            return find_revision(session, self.model.name)

    def has_task(self) -> bool:
        """Whether the head serves a task of this name, as after a rollback forward."""
        with self.context.catalog.snapshot() as session:
            return any(task.name == self.job.task for task in head_tasks(session, self.model.name))

    def counter(self, phase: str, total: int, *, counts_images: bool = True) -> Callable[[int], None]:
        """A function to call with the images or parts done; it tells the progress, and may interrupt."""
        began = time.monotonic()

        def count(step: int) -> None:
            self.context.check_cancelled()
            per_s = step / max(time.monotonic() - began, 1e-9)
            progress = {
                "phase": phase,
                "step": step,
                "steps": total,
                "eta_s": (total - step) / per_s if per_s else None,
            }
            self.context.report(progress | ({"images_per_s": per_s} if counts_images else {}))

        return count


def read_assignment(context: JobContext, bench: Workbench) -> Assignment:
    """The job's rows as they are now."""
    with context.catalog.snapshot() as session:
        job = find_job(session, context.job_id)
        model = find_model(session, job.model)
        return Assignment(context, bench, job, model, _base_ref(session, model))


def adapter_ref(model: ModelRecord) -> AdapterRef | None:
    """What the model's adapters start from; None where it is tuned in full."""
    if model.adapter is None:
        return None
    return AdapterRef(model.adapter, cast("int", model.lora_rank), cast("int", model.lora_seed))


def _base_ref(session: Session, model: ModelRecord) -> BaseRef:
    base = find_base(session, model.base)
    return BaseRef(
        name=base.name,
        digest=base.digest,
        architecture=resolve_architecture(name=base.architecture, config=base.config),
        preprocessing=Preprocessing.from_dict(base.preprocessing),
        adapter=adapter_ref(model),
    )
