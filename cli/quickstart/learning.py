"""The middle of the story: tasks are learned one after another, and after each all are asked about."""

import time
from typing import Any

from cli.progress import count_gauge
from cli.quickstart.asking import accuracy_of, ask
from cli.quickstart.demo_files import DemoTask
from cli.quickstart.scene import Scene
from cli.units import as_percent
from cli.uploads import FileBody
from cli.watching import follow, succeeded


def measure_zero_shot(scene: Scene) -> None:
    """Ask the model, which has learned nothing, about every task: that is the base's zero-shot ability."""
    scene.chapter("Zero-shot: what the base knows of each task by the names of its classes")
    for task in (*scene.trained, scene.imported):
        images = scene.held_out[task.name]
        with count_gauge(scene.output, f"asking about {task.name}") as on_progress:
            answered = ask(
                scene.client,
                scene.plan.model_name,
                images,
                labels=task.classes,
                templates=list(task.templates),
                on_progress=on_progress,
            )
        scene.numbers.zero_shot[task.name] = accuracy_of(answered)
    rows = [
        (
            task.name,
            len(task.classes),
            task.num_train,
            len(scene.held_out[task.name]),
            as_percent(scene.numbers.zero_shot[task.name]),
        )
        for task in (*scene.trained, scene.imported)
    ]
    scene.output.table(("task", "classes", "images to learn from", "held out", "zero-shot"), rows)


def learn(scene: Scene, task: DemoTask) -> None:
    """Send a task's images, have it trained and folded in, and say how its loss fell."""
    training = scene.training_of(task)
    scene.chapter(
        f"Task {len(scene.numbers.accuracy) + 1}: {task.name} ({training['iterations']} training steps)"
    )
    started = time.monotonic()
    dataset = scene.client.upload_dataset(FileBody(task.archive))
    job = scene.client.submit_task(
        scene.plan.model_name, task.name, dataset=dataset.digest, templates=task.templates, training=training
    )
    losses: list[tuple[int, float]] = []

    def keep_loss(progress: dict[str, Any]) -> None:
        if progress.get("loss") is not None:
            losses.append((int(progress["step"]), float(progress["loss"])))

    named = job.model_copy(update={"kind": "learning", "task": task.name})
    job = succeeded(follow(scene.client, scene.output, named, on_progress=keep_loss))
    note_training(scene, task, losses)
    scene.numbers.training[task.name]["seconds"] = time.monotonic() - started
    note_learned(scene, task)


def note_training(scene: Scene, task: DemoTask, losses: list[tuple[int, float]]) -> None:
    """Write down and print how the loss fell."""
    scene.numbers.training[task.name] = {
        "losses": [{"step": step, "loss": loss} for step, loss in losses],
        "options": scene.training_of(task),
    }
    if losses:
        (first_step, first), (last_step, last) = losses[0], losses[-1]
        scene.numbers.training[task.name] |= {"first_loss": first, "last_loss": last}
        fell = f", {last:.3f} at step {last_step}" if last_step != first_step else ""
        scene.output.say(f"loss {first:.3f} at step {first_step}{fell}")


def note_learned(scene: Scene, task: DemoTask) -> None:
    """Write down and print what the service recorded of a task when it was learned."""
    learned = scene.client.get_task(scene.plan.model_name, task.name)
    accuracy, fidelity = learned.accuracy or {}, learned.fidelity or {}
    scene.numbers.individual[task.name] = accuracy.get("individual")
    scene.numbers.fidelity[task.name] = {
        "rescaler": learned.rescaler,
        "density": learned.density,
        **{name: fidelity.get(name) for name in ("relative_l2", "cosine", "reference")},
    }
    scene.output.say(
        f"on its held-out images: {as_percent(accuracy.get('zero_shot'))} before, "
        f"{as_percent(accuracy.get('individual'))} fine-tuned, "
        f"{as_percent(accuracy.get('expert'))} after folding in"
    )


def ask_about_all(scene: Scene) -> None:
    """Ask each learned task's expert about that task's held-out images; one more row of the table."""
    learned = scene.client.get_model(scene.plan.model_name).tasks
    row: dict[str, float] = {}
    for name in learned:
        with count_gauge(scene.output, f"asking the expert of {name}") as on_progress:
            answered = ask(
                scene.client, scene.plan.model_name, scene.held_out[name], task=name, on_progress=on_progress
            )
        row[name] = accuracy_of(answered)
    scene.numbers.accuracy.append(row)
    print_accuracy(scene)


def print_accuracy(scene: Scene) -> None:
    """The accuracy table so far, next to zero-shot and to the fresh fine-tunes."""
    numbers = scene.numbers
    names = [task.name for task in (*scene.trained, scene.imported)]
    rows = [("zero-shot (base)", *(as_percent(numbers.zero_shot.get(name)) for name in names))]
    rows += [
        (f"after task {step}", *(as_percent(row.get(name)) for name in names))
        for step, row in enumerate(numbers.accuracy, start=1)
    ]
    rows.append(("fine-tuned alone", *(as_percent(numbers.individual.get(name)) for name in names)))
    scene.output.say()
    scene.output.table(("held-out accuracy", *names), rows)
