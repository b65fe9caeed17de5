"""A small training run on disk: base weights, prepared pictures, spec."""

from pathlib import Path
from typing import Any

from catalog.training_options import TrainingOptions
from imagesets import ArchiveLimits
from tests.tiny_clip import TINY_CONFIG, write_tiny_base
from tests.worker.picturing import colour_archive
from vlm.architecture import resolve_architecture
from worker.datasets.preparing import PreparedImages, ScreeningRules, prepare_images
from worker.training.loop import Task
from worker.training.spec import TrainingSpec

MAX_PIXELS = 1_000_000


def rules(config: dict[str, Any] = TINY_CONFIG, **changes: Any) -> ScreeningRules:
    """Screening for the tiny architecture."""
    values: dict[str, Any] = {
        "limits": ArchiveLimits(),
        "preprocessing": resolve_architecture(config=config).preprocessing(),
        "max_pixels": MAX_PIXELS,
        "test_fraction": 0.25,
        "seed": 0,
    }
    return ScreeningRules(**{**values, **changes})


def prepared(folder: Path, *, members: dict[str, bytes] | None = None, **changes: Any) -> PreparedImages:
    """An archive's images, prepared under the folder."""
    folder.mkdir(exist_ok=True)
    archive = colour_archive(folder / "archive.tar", members)
    return prepare_images(archive, folder / "images", rules(**changes), on_images=lambda *_: None)


def training_spec(folder: Path, *, config: dict[str, Any] = TINY_CONFIG, **options: Any) -> TrainingSpec:
    """A run of a few iterations on `prepared(folder)`, results in a folder of its own."""
    architecture = resolve_architecture(config=config)
    base = folder / "base.safetensors"
    if not base.exists():
        write_tiny_base(base, config=config)
    result = folder / f"run-{len(list(folder.glob('run-*')))}"
    result.mkdir()
    chosen = {"iterations": 8, "batch_size": 6, "learning_rate": 1e-3, "warmup_iterations": 2, **options}
    return TrainingSpec(
        architecture=architecture,
        preprocessing=architecture.preprocessing(),
        base=base,
        images=folder / "images" / "prepared.json",
        max_pixels=MAX_PIXELS,
        template="a photo of a {}.",
        options=TrainingOptions(**chosen),
        device="cpu",
        num_threads=1,
        folder=result,
    )


def task_of(images: PreparedImages, spec: TrainingSpec) -> Task:
    """What the training loop wants to know of the images."""
    return Task(images.pictures(spec.preprocessing, max_pixels=spec.max_pixels), images.train, images.classes)
