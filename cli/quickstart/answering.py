"""Questions without a task's name, and with labels that no task has."""

from collections.abc import Sequence

from cli.progress import count_gauge
from cli.quickstart.asking import Answered, accuracy_of, ask
from cli.quickstart.scene import Scene
from cli.units import as_percent

EXAMPLES_A_TASK = 1
EXAMPLES_OF_UNSEEN = 3


def ask_without_names(scene: Scene) -> None:
    """Ask about images of every learned task without saying which task they belong to."""
    scene.chapter(
        "Without naming the task: the base and the nearest experts answer together, over all classes"
    )
    examples: list[tuple[str, Answered]] = []
    for task in scene.trained:
        images = scene.held_out[task.name][: scene.plan.unnamed_per_task]
        with count_gauge(scene.output, f"asking about {task.name}") as on_progress:
            answered = ask(scene.client, scene.plan.model_name, images, on_progress=on_progress)
        scene.numbers.unnamed[task.name] = accuracy_of(answered)
        examples += [(task.name, found) for found in answered[:EXAMPLES_A_TASK]]
    print_examples(scene, examples)
    shares = ", ".join(f"{name} {as_percent(share)}" for name, share in scene.numbers.unnamed.items())
    scene.output.say(f"right, of {scene.plan.unnamed_per_task} images each: {shares}")


def ask_with_foreign_labels(scene: Scene) -> None:
    """Ask about the images of a task nobody taught, with its labels."""
    task = scene.imported
    scene.chapter(f"Labels that no task has: the classes of {task.name}, which nobody has taught yet")
    images = scene.held_out[task.name][: scene.plan.unnamed_per_task * 2]
    with count_gauge(scene.output, f"asking about {task.name}") as on_progress:
        answered = ask(
            scene.client,
            scene.plan.model_name,
            images,
            labels=task.classes,
            templates=list(task.templates),
            on_progress=on_progress,
        )
    alone = ask(
        scene.client,
        scene.plan.model_name,
        images,
        labels=task.classes,
        templates=list(task.templates),
        k=0,
    )
    scene.numbers.unseen_labels = {
        "task": task.name,
        "images": len(images),
        "accuracy": accuracy_of(answered),
        "base_alone": accuracy_of(alone),
    }
    print_examples(scene, [(task.name, found) for found in answered[:EXAMPLES_OF_UNSEEN]])
    scene.output.say(
        f"right, of {len(images)} images: {as_percent(accuracy_of(answered))} together, "
        f"{as_percent(accuracy_of(alone))} by the base alone"
    )


def print_examples(scene: Scene, examples: Sequence[tuple[str, Answered]]) -> None:
    """A few answers with the experts that gave them."""
    rows = [
        (
            task,
            found.image.label,
            found.label,
            as_percent(100 * found.answer.predictions[0].probability) if found.answer.predictions else None,
            ", ".join(f"{share.task or 'base'} {share.weight:.2f}" for share in found.answer.experts),
        )
        for task, found in examples
    ]
    scene.output.table(
        ("an image of", "truth", "answer", "probability", "who answered, with which weight"), rows
    )
