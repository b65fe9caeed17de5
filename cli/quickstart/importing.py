"""A checkpoint that was fine-tuned outside the service becomes a further task of the model."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cli.errors import CommandFailedError
from cli.progress import bytes_gauge, job_gauge
from cli.quickstart.demo_files import DemoTask
from cli.quickstart.learning import note_learned, note_training
from cli.quickstart.scene import Scene
from cli.uploads import FileBody
from cli.watching import follow, succeeded


def import_a_checkpoint(scene: Scene) -> None:
    """Fine-tune the last task here, as anyone could elsewhere, and hand the checkpoint to the service."""
    task, plan = scene.imported, scene.plan
    started = time.monotonic()
    scene.chapter(f"Import: {task.name} is fine-tuned outside the service, and the checkpoint becomes a task")
    losses: list[tuple[int, float]] = []
    with job_gauge(scene.output, f"fine-tuning {task.name} outside") as show:

        def on_progress(progress: dict[str, Any]) -> None:
            show(progress)
            losses.append((int(progress["step"]), float(progress["loss"])))

        checkpoint = fine_tune_outside(scene, task, on_progress)
    note_training(scene, task, losses)
    dataset = scene.client.upload_dataset(FileBody(task.archive))
    with bytes_gauge(scene.output, "uploading the checkpoint") as on_sent:
        job = scene.client.import_task(
            plan.model_name,
            task.name,
            checkpoint,
            classes=task.classes,
            templates=task.templates,
            dataset=dataset.digest,
            on_sent=on_sent,
        )
    succeeded(
        follow(scene.client, scene.output, job.model_copy(update={"kind": "import", "task": task.name}))
    )
    scene.numbers.imported = {"task": task.name, "checkpoint_bytes": checkpoint.stat().st_size}
    scene.numbers.training[task.name]["seconds"] = time.monotonic() - started
    note_learned(scene, task)


def fine_tune_outside(scene: Scene, task: DemoTask, on_progress: Callable[[dict[str, Any]], None]) -> Path:
    """A full fine-tuned checkpoint of a task, made by the worker's training process without any service."""
    from worker.training.spec import TrainingSpec

    folder = scene.scratch / "outside"
    spec_file = folder / "spec.json"
    folder.mkdir()
    write_spec(scene, task, spec_file)
    # The process is killed when its parent ends, so that an interrupted quickstart leaves nothing running.
    given = [str(spec_file), str(os.getpid()), "0", str(folder / "meeting")]
    arguments = [sys.executable, "-m", "worker.training", *given]
    last: dict[str, Any] = {}
    with subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            for line in process.stdout or ():
                last = json.loads(line)
                if last["event"] == "progress":
                    on_progress(last)
        finally:
            process.terminate()
    if last.get("event") != "done":
        raise CommandFailedError(
            str(last.get("title") or f"the fine-tuning of {task.name} ended early"),
            detail=str(last.get("detail") or f"exit code {process.returncode}"),
            remedy=str(last.get("remedy") or "read what it said above"),
        )
    return TrainingSpec.read(spec_file).result


def write_spec(scene: Scene, task: DemoTask, spec_file: Path) -> None:
    """Prepare the images and write down what the training process is to do."""
    import torch

    from catalog.training_options import TrainingOptions
    from imagesets import ArchiveLimits
    from vlm.architecture import resolve_architecture
    from vlm.images import DEFAULT_MAX_PIXELS
    from vlm.preprocessing import Preprocessing
    from worker.datasets.preparing import ScreeningRules, prepare_images
    from worker.training.spec import TrainingSpec

    base = scene.client.get_base(scene.plan.base_name).to_dict()
    options = TrainingOptions.model_validate(scene.training_of(task))
    rules = ScreeningRules(
        limits=ArchiveLimits(),
        preprocessing=Preprocessing.from_dict(base["preprocessing"]),
        max_pixels=DEFAULT_MAX_PIXELS,
        test_fraction=options.test_fraction,
        seed=options.seed,
    )
    images = spec_file.parent / "images"
    prepare_images(task.archive, images, rules, on_images=lambda _what, _done, _total: None)
    TrainingSpec(
        architecture=resolve_architecture(config=base["config"]),
        preprocessing=rules.preprocessing,
        base=scene.base_weights,
        images=images / "prepared.json",
        max_pixels=rules.max_pixels,
        template=task.templates[0],
        options=options,
        device="cuda" if torch.cuda.is_available() else "cpu",
        num_threads=None,
        folder=spec_file.parent,
    ).write(spec_file)
