"""How often base, fresh fine-tune and expert are right on the held-out images, and where the classes lie."""

from dataclasses import dataclass, replace
from pathlib import Path

from store.checkpoints import FoldOutcome
from vlm.adapters import build_fine_tuned
from vlm.evaluation import evaluate
from vlm.experts import Expert
from vlm.prototypes import compute_prototypes
from worker.files import read_json, write_json
from worker.jobs.assignment import Assignment
from worker.jobs.lesson import Lesson

PROTOTYPES_NAME = "prototypes.safetensors"


@dataclass(frozen=True)
class Accuracies:
    """Top-1 in percent on the held-out images; None where nothing was held out."""

    base: float | None
    individual: float | None


def measure_base_and_individual(work: Assignment, lesson: Lesson, checkpoint: Path) -> Accuracies:
    """The zero-shot accuracy of the base and that of the fine-tuned checkpoint before any fusion."""
    marker = work.folder / "accuracies.json"
    found = read_json(marker)
    if found is None:
        with work.bench.pool.lease(work.base, None, None) as base:
            zero_shot = _accuracy(work, lesson, base)
        individual = _accuracy(work, lesson, _individual(work, checkpoint)) if lesson.test else None
        found = {"base": zero_shot, "individual": individual}
        write_json(marker, found)
    return Accuracies(**found)


def measure_expert(work: Assignment, lesson: Lesson, outcome: FoldOutcome) -> float | None:
    """The accuracy of the task's expert as the folded revision will serve it."""
    if not lesson.test:
        return None
    with work.bench.pool.lease(work.base, outcome.manifest, work.job.task) as expert:
        return _accuracy(work, lesson, expert)


def make_prototypes(work: Assignment, lesson: Lesson) -> Path:
    """A file with the task's prototypes, made by the base from the images trained on."""
    path = work.folder / PROTOTYPES_NAME
    if path.exists():
        return path
    with work.bench.pool.lease(work.base, None, None) as base:
        prototypes = compute_prototypes(
            base.model,
            base.tokenizer,
            lesson.batches(work, lesson.train),
            classes=lesson.classes,
            templates=lesson.templates,
            on_progress=work.counter("prototypes", len(lesson.train)),
        )
    part = path.with_suffix(".part")
    part.write_bytes(prototypes.to_bytes())
    part.replace(path)
    return path


def _accuracy(work: Assignment, lesson: Lesson, expert: Expert) -> float | None:
    if not lesson.test:
        return None
    return evaluate(
        expert.model,
        expert.tokenizer,
        lesson.batches(work, lesson.test),
        classes=lesson.classes,
        templates=lesson.templates,
        on_progress=work.counter("measure", len(lesson.test)),
    )


def _individual(work: Assignment, checkpoint: Path) -> Expert:
    """The fine-tuned model itself: its weights mapped from the file, or the base with the file's adapter."""
    pool, architecture = work.bench.pool, work.base.architecture
    with pool.lease_base(replace(work.base, adapter=None)) as base:
        model = build_fine_tuned(work.base, base, checkpoint).to(pool.device)
    return Expert(work.job.task, "", model, architecture.tokenizer(), architecture.digest)
