"""The checkpoint store: where bytes, formats and mathematics meet."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from store.bases import Base, SavedBase, check_header, load_base, read_delta, save_base
from store.blobs import Blobs
from store.errors import CorruptBlobError, InvalidUploadError
from store.experts import ExpertFile, ExpertReader, Rebuilt, UnifiedDelta, load_unified, unified_digest
from store.folding import fold_artefacts
from store.fusion import FoldedTask, OldTask, TensorWeights, fusion_kind
from store.manifest import BaseManifest, Extension, FusionOptions, Manifest, TaskEntry
from store.parameters import ExpectedTensor, ParameterSpace
from store.safefile import SafeFile, header_bytes, read_header, tensor_bytes


@dataclass(frozen=True)
class NewTask:
    """A task before it is folded in: its classes, its templates, and the digest of its prototypes."""

    name: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    prototypes: str


@dataclass(frozen=True)
class TaskMeasures:
    """What a fusion did to one task.

    Attributes:
        density: Share of the parameters whose mask bit is set.
        bits_cleared: Bits this fusion cleared; for the new task, non-zero delta entries that lost the vote.
        relative_l2: Distance of the served delta from the reference, relative to the reference.
        cosine: Cosine between the two.
        reference: "original" (the task's own fine-tuned delta) at its own step; afterwards, when the
            original is gone, "previous revision" (the delta served before this fusion).
    """

    rescaler: float
    density: float
    l1_norm: float
    bits_cleared: int
    relative_l2: float
    cosine: float
    reference: str


@dataclass(frozen=True)
class FoldOutcome:
    """A written, unpublished revision: its manifest, what became of each task, its artefacts' bytes."""

    manifest_digest: str
    manifest: Manifest
    tasks: dict[str, TaskMeasures]
    unified_bytes: int
    trigger_bytes: dict[str, int]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class StoredSizes:
    """Bytes on disk of what a revision keeps (triggers, prototypes and buffers by task).

    Attributes:
        base: The pre-trained model, which other models may share.
        extension: What the revision's deltas are taken from, where that is a base of its own (the adapters'
            initialisation); else 0.
    """

    base: int
    extension: int
    unified: int
    triggers: dict[str, int]
    prototypes: dict[str, int]
    buffers: dict[str, int]

    @property
    def total(self) -> int:
        """Everything together."""
        by_task = (self.triggers, self.prototypes, self.buffers)
        return self.base + self.extension + self.unified + sum(sum(sizes.values()) for sizes in by_task)


class CheckpointStore:
    """Bases, revisions and experts over a place for blobs; holds no state of its own."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs

    def save_base(
        self, path: Path, expected: Mapping[str, ExpectedTensor], *, extends: Extension | None = None
    ) -> SavedBase:
        """Take a safetensors file in as a base; see store.bases.save_base."""
        return save_base(self.blobs, path, expected, extends=extends)

    def load_base(self, digest: str) -> Base:
        """The base in memory; see store.bases.load_base."""
        return load_base(self.blobs, digest)

    def check_checkpoint(self, space: ParameterSpace, path: Path) -> None:
        """Hold a checkpoint's header against a base's layout, without reading its values.

        Raises:
            InvalidUploadError: The file is malformed.
            IncompatibleTensorsError: A tensor does not fit (named).
        """
        check_header(space, read_header(path))

    def manifest(self, digest: str) -> Manifest:
        """The revision's manifest."""
        return Manifest.from_json(self.blobs.read_checked(digest))

    def fold(
        self,
        base: Base,
        *,
        parent: str | None,
        options: FusionOptions,
        new_task: NewTask,
        checkpoint: Path,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> FoldOutcome:
        """Fold a fine-tuned checkpoint into a revision and write the next one, on the base's device.

        The same inputs give the same digest. Nothing is published: until a catalog names the manifest,
        its blobs are leftovers that a sweep removes.

        Args:
            base: The base that the checkpoint was fine-tuned from.
            parent: Digest of the revision to fold into; None for the first.
            options: The model's options; must equal the parent's.
            new_task: The task; its prototypes are in the store already.
            checkpoint: The fine-tuned safetensors file.
            on_progress: Called with (chunks done, chunks in all).

        Raises:
            InvalidUploadError: The checkpoint is malformed, not finite, equal to the base, or the task is
                there already.
            IncompatibleTensorsError: A tensor does not fit the base.
            CorruptBlobError: The parent's artefacts are damaged.
            BlobsUnavailableError: The disk is full; nothing but leftovers was written.
        """
        old = None if parent is None else self.manifest(parent)
        _check_parent(old, base=base, options=options, name=new_task.name)
        old_tasks, space = old.tasks if old else (), base.space
        delta, buffers = read_delta(base, SafeFile(checkpoint))
        fold = fusion_kind(options.kind).begin(
            old_tasks=[OldTask(task.rescaler, task.l1_norm) for task in old_tasks],
            weights=TensorWeights.of(options.rescaler_norm, starts=space.starts, sizes=space.sizes),
            device=str(base.flat.device),
        )
        written = fold_artefacts(
            self.blobs,
            fold,
            space,
            old=old,
            delta=delta,
            unified_dtype=options.unified_dtype,
            on_progress=on_progress,
        )
        folded = fold.finish()
        entries = (*old_tasks, self._entry(new_task, buffers))
        manifest = Manifest(
            base=base.digest,
            layout=space.digest,
            num_parameters=space.num_parameters,
            options=options,
            unified=written.unified,
            tasks=tuple(_refolded(*row) for row in zip(entries, written.masks, folded, strict=True)),
            parent=parent,
        )
        return self._outcome(manifest, folded)

    def drop_task(self, digest: str, name: str) -> tuple[str, Manifest]:
        """Write the revision that serves all tasks but this one; return its digest and manifest.

        The task's imprint stays in the unified delta and in the other masks: only rolling back to a revision
        before the task, and learning again what came after it, removes that.
        """
        old = self.manifest(digest)
        dropped = old.task(name)
        rest = tuple(task for task in old.tasks if task is not dropped)
        manifest = replace(old, tasks=rest, unified=old.unified if rest else None, parent=digest)
        return self.blobs.put(manifest.to_json()).digest, manifest

    def load_unified(self, base: Base, manifest: Manifest) -> UnifiedDelta:
        """The revision's unified delta in memory, for many rebuilds; see store.experts.load_unified."""
        return load_unified(self.blobs, unified_digest(manifest), base)

    def rebuild(
        self,
        base: Base,
        manifest: Manifest,
        task: str,
        *,
        unified: UnifiedDelta | None = None,
        out: Float[Tensor, " flat"] | None = None,
    ) -> Rebuilt:
        """The task's expert, built from the pristine base into a buffer that the caller owns.

        Args:
            base: The manifest's base; the expert is built on its device.
            manifest: The revision.
            task: The task's name.
            unified: The revision's unified delta, if it is in memory (`load_unified`): a rebuild then reads
                nothing but the trigger.
            out: A float32 buffer of the space's flat size to reuse, on the base's device; a new one is made
                without it.

        Raises:
            NotFoundError: The revision has no such task.
            CorruptBlobError: A chunk of the trigger or of the unified delta is damaged.
        """
        reader = ExpertReader(self.blobs, base, manifest, task=manifest.task(task), unified=unified)
        flat = torch.empty_like(base.flat) if out is None else out
        reader.rebuild(flat)
        return Rebuilt(flat, reader.buffers())

    def export(self, base: Base, manifest: Manifest, task: str) -> ExpertFile:
        """The task's expert as a safetensors file that is rebuilt while it is read."""
        reader = ExpertReader(self.blobs, base, manifest, task=manifest.task(task))
        return ExpertFile(reader, base, manifest.expert_digest(task))

    def sizes(self, manifest: Manifest) -> StoredSizes:
        """Bytes on disk of what this revision keeps."""
        size = self.blobs.size_bytes
        extends, extension = self._base_sizes(manifest.base)
        base = extension if extends is None else self._base_sizes(extends.base)[1]
        return StoredSizes(
            base=base,
            extension=0 if extends is None else extension,
            unified=size(manifest.unified) if manifest.unified else 0,
            triggers={task.name: size(task.mask) for task in manifest.tasks},
            prototypes={task.name: size(task.prototypes) for task in manifest.tasks},
            buffers={task.name: size(task.buffers) for task in manifest.tasks if task.buffers},
        )

    def _base_sizes(self, digest: str) -> tuple[Extension | None, int]:
        """What the base extends, and its own bytes: manifest and weights."""
        content = self.blobs.read_checked(digest)
        manifest = BaseManifest.from_json(content)
        return manifest.extends, len(content) + self.blobs.size_bytes(manifest.weights)

    def _entry(self, new_task: NewTask, buffers: Mapping[str, Tensor]) -> TaskEntry:
        digest = None
        if buffers:
            names = sorted(buffers)
            entries = [
                (name, str(buffers[name].dtype).removeprefix("torch."), tuple(buffers[name].shape))
                for name in names
            ]
            content = header_bytes(entries) + b"".join(tensor_bytes(buffers[name]) for name in names)
            digest = self.blobs.put(content).digest
        return TaskEntry(
            name=new_task.name,
            mask="",
            rescaler=0.0,
            l1_norm=0.0,
            bits_set=0,
            buffers=digest,
            prototypes=new_task.prototypes,
            classes=new_task.classes,
            templates=new_task.templates,
        )

    def _outcome(self, manifest: Manifest, folded: list[FoldedTask]) -> FoldOutcome:
        measures, warnings = {}, []
        for task, result in zip(manifest.tasks, folded, strict=True):
            is_new = task is manifest.tasks[-1]
            measures[task.name] = TaskMeasures(
                rescaler=result.rescaler,
                density=result.bits_set / manifest.num_parameters,
                l1_norm=result.l1_norm,
                bits_cleared=result.bits_cleared,
                relative_l2=result.relative_l2,
                cosine=result.cosine,
                reference="original" if is_new else "previous revision",
            )
            if result.bits_set == 0:
                warnings.append(
                    f"task {task.name!r} lost every vote: its mask is empty and its expert equals the base; "
                    "roll back, or learn it again at a higher learning rate"
                )
        sizes = self.sizes(manifest)
        return FoldOutcome(
            manifest_digest=self.blobs.put(manifest.to_json()).digest,
            manifest=manifest,
            tasks=measures,
            unified_bytes=sizes.unified,
            trigger_bytes=sizes.triggers,
            warnings=tuple(warnings),
        )


def _refolded(task: TaskEntry, mask: str, result: FoldedTask) -> TaskEntry:
    return replace(
        task, mask=mask, rescaler=result.rescaler, l1_norm=result.l1_norm, bits_set=result.bits_set
    )


def _check_parent(old: Manifest | None, *, base: Base, options: FusionOptions, name: str) -> None:
    if old is None:
        return
    if old.base != base.digest:
        raise CorruptBlobError("base of the revision to fold into", expected=old.base, found=base.digest)
    if old.options != options:
        raise InvalidUploadError(
            f"the model fuses with {old.options}, not {options}; make a new model for other options"
        )
    if any(task.name == name for task in old.tasks):
        raise InvalidUploadError(
            f"task {name!r} is in the revision already; remove it first, or choose another name"
        )
