"""What every method of a run works with: the lessons, the base, the store, and the fine-tunes they share."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from pydantic import ValidationError
from torch import Tensor

from bench.continual.evaluating import Cell, Lesson, ask_model, union_labels
from bench.continual.fine_tunes import Ground, TunedCheckpoint, TunedCheckpoints
from bench.continual.meter import Meter
from bench.continual.plan import Plan
from bench.errors import BenchError
from bench.suites import Suite, Tuning
from catalog.training_options import TrainingOptions
from store.bases import Base, read_delta
from store.checkpoints import CheckpointStore
from store.manifest import BaseManifest
from store.safefile import SafeFile
from vlm.adapters import build_fine_tuned, make_adapter_base, merge_adapter
from vlm.bases import AdapterRef, BaseRef
from vlm.experts import Expert, ExpertPool
from vlm.features import image_features
from vlm.prediction import Predictor
from vlm.prototypes import PrototypeSet, compute_prototypes

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})


@dataclass(frozen=True)
class Reference:
    """Captioned pictures that ZSCL distils on: file and caption, in the order of the files' names."""

    pictures: tuple[Path, ...]
    captions: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path) -> "Reference":
        """The pictures of a folder that have a caption of the same name beside them, as NAME.txt.

        Raises:
            BenchError: There is no such folder, or no such pair in it.
        """
        captions = sorted(folder.rglob("*.txt")) if folder.is_dir() else []
        pairs = [
            (picture, caption.read_text(encoding="utf-8").splitlines()[0])
            for caption in captions
            for picture in sorted(caption.parent.glob(f"{caption.stem}.*"))
            if picture.suffix.lower() in PICTURE_SUFFIXES
        ]
        if not pairs:
            raise BenchError(
                f"{folder} has no captioned pictures",
                remedy="put the caption of NAME.png beside it, as the first line of NAME.txt",
            )
        return cls(tuple(picture for picture, _ in pairs), tuple(text for _, text in pairs))


@dataclass
class Stage:
    """One run's surroundings; built by `runner.run`.

    Attributes:
        plan: The run.
        suite: Where lessons and hyper-parameters come from.
        lessons: In the order of the plan.
        base: The pre-trained model, without an adapter.
        pool: Bases and experts in memory; its store keeps bases and revisions.
        fine_tunes: The cache.
        meter: Told of the work.
        reference: For the methods that want one.
    """

    plan: Plan
    suite: Suite
    lessons: Sequence[Lesson]
    base: BaseRef
    pool: ExpertPool
    fine_tunes: TunedCheckpoints
    meter: Meter
    files: Path
    reference: Reference | None = None
    _zero_shot: list[Cell] = field(default_factory=list)
    _prototypes: dict[str, PrototypeSet] = field(default_factory=dict)

    @property
    def store(self) -> CheckpointStore:
        """Where bases and revisions are kept."""
        return self.pool.store

    @cached_property
    def predictor(self) -> Predictor:
        """What answers requests."""
        return Predictor(self.pool)

    @cached_property
    def union(self) -> tuple[str, ...]:
        """All classes of the suite."""
        return union_labels(self.lessons)

    @cached_property
    def checkpoint_bytes(self) -> int:
        """One whole checkpoint."""
        return BaseManifest.from_json(self.store.blobs.read_checked(self.base.digest)).size_bytes

    def fine_tune_bytes(self, tuning: Tuning) -> int:
        """One fine-tuned file: a whole checkpoint, or an adapter."""
        ref = self.ref(tuning)
        digest = self.base.digest if ref.adapter is None else ref.adapter.digest
        return BaseManifest.from_json(self.store.blobs.read_checked(digest)).size_bytes

    def one_model_bytes(self, tuning: Tuning) -> int:
        """What answering with one fine-tuned model takes."""
        adapter_bytes = 0 if tuning == "full" else self.fine_tune_bytes(tuning)
        return self.checkpoint_bytes + adapter_bytes

    def prototypes_of(self, lesson: Lesson) -> PrototypeSet:
        """The task's prototypes, made by the base from the images trained on."""
        if lesson.name not in self._prototypes:
            with self.pool.lease(self.base, None, None) as base:
                self._prototypes[lesson.name] = compute_prototypes(
                    base.model,
                    base.tokenizer,
                    lesson.train_batches(),
                    classes=lesson.classes,
                    templates=lesson.task.templates,
                )
        return self._prototypes[lesson.name]

    def options(self, task: str, tuning: Tuning) -> TrainingOptions:
        """The suite's hyper-parameters for a task, under the run's own."""
        chosen = self.suite.training(task, tuning=tuning, is_few_shot=self.plan.num_shots is not None)
        own = {"seed": self.plan.seed, "shots": self.plan.num_shots}
        try:
            return TrainingOptions.model_validate({**chosen, **self.plan.training, **own})
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"]) or "the hyper-parameters"
            raise BenchError(
                f"{name} of task {task!r}: {first['msg']}",
                remedy="correct it in --training, or in the suite's own file",
            ) from error

    def ref(self, tuning: Tuning) -> BaseRef:
        """The base, with the run's adapter where that is what is tuned."""
        return replace(self.base, adapter=self._adapter) if tuning == "lora" else self.base

    @cached_property
    def _adapter(self) -> AdapterRef:
        return make_adapter_base(self.store, self.base, rank=self.plan.rank, seed=self.plan.seed)

    def lease_base(self, tuning: Tuning) -> AbstractContextManager[Base]:
        """The base that deltas are taken from: the adapter's initialisation where that is what is tuned."""
        return self.pool.lease_base(self.ref(tuning))

    def ground(self, tuning: Tuning) -> Ground:
        """Where fine-tuning starts."""
        ref = self.ref(tuning)
        adapter = None if ref.adapter is None else self._weights(ref.adapter.digest)
        return Ground(ref, self._weights(ref.digest), adapter)

    def fine_tune(self, lesson: Lesson, tuning: Tuning) -> TunedCheckpoint:
        """The base fine-tuned on the lesson alone, as a training job does it."""
        return self.fine_tunes.get(self.ground(tuning), lesson, self.options(lesson.name, tuning))

    def expert_of_file(self, checkpoint: Path, tuning: Tuning) -> Expert:
        """A fine-tuned checkpoint, or an adapter on the base, as a model of its own."""
        with self.pool.lease_base(self.base) as base:
            model = build_fine_tuned(self.ref(tuning), base, checkpoint).to(self.pool.device)
        return self._expert(model)

    def expert_of_delta(self, delta: Tensor, tuning: Tuning) -> Expert:
        """theta0 plus a flat delta, in the space of what is tuned, as a model of its own."""
        with self.pool.lease_base(self.base) as base, self.lease_base(tuning) as space:
            flat = space.flat + delta.to(space.flat.device)
            if tuning == "lora":
                flat = merge_adapter(self.ref(tuning), base, space, flat=flat)
            tensors = {**base.space.views(flat), **base.buffers, **base.fixed}
        return self._expert(self.base.architecture.build(tensors).to(self.pool.device))

    def delta(self, fine_tune: TunedCheckpoint, tuning: Tuning) -> Tensor:
        """The flat float32 delta of a fine-tune, in the space of what is tuned."""
        with self.lease_base(tuning) as space:
            return read_delta(space, SafeFile(fine_tune.checkpoint))[0]

    @cached_property
    def base_features(self) -> list[Float[Tensor, "N D"]]:
        """The base's features of each lesson's held-out images, which routing goes by."""
        with self.pool.lease(self.base, None, None) as base:
            return [
                torch.cat([image_features(base.model, shown).cpu() for shown, _ in lesson.held_out_batches()])
                for lesson in self.lessons
            ]

    def zero_shot(self) -> list[Cell]:
        """The base's cells, asked once."""
        if not self._zero_shot:
            with self.pool.lease(self.base, None, None) as expert:
                self._zero_shot = self.ask(expert, self.lessons)
        return self._zero_shot

    def ask(self, expert: Expert, lessons: Sequence[Lesson]) -> list[Cell]:
        """One model's cells for those lessons."""
        cells = []
        for lesson in lessons:
            cells += ask_model(expert, [lesson], union=self.union)
            self.meter.done(lesson.num_test)
        return cells

    def _expert(self, model: torch.nn.Module) -> Expert:
        architecture = self.base.architecture
        return Expert(None, "", model, architecture.tokenizer(), architecture.digest)

    def _weights(self, digest: str) -> Path:
        """A stored base as a file."""
        weights = BaseManifest.from_json(self.store.blobs.read_checked(digest)).weights
        path = self.files / f"{weights}.safetensors"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            self.store.blobs.copy_to(weights, path)
        return path
