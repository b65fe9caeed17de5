"""An expert leaves the service as a file, and plain open_clip gives the same answers with it."""

from dataclasses import asdict

from cli.progress import bytes_gauge
from cli.quickstart.asking import ask
from cli.quickstart.plain_clip import agreement, lay_out, log_probabilities
from cli.quickstart.scene import Scene
from cli.units import as_bytes, short

NUM_IMAGES = 50


def export_and_compare(scene: Scene) -> None:
    """Export the expert of the first task, the one folded most often, and hold it against the service."""
    task = scene.trained[0]
    scene.chapter(f"Export: the expert of {task.name} as a safetensors file, loaded by plain open_clip")
    exported = scene.scratch / f"{task.name}.safetensors"
    with bytes_gauge(scene.output, f"downloading the expert of {task.name}") as on_received:
        done = scene.client.download_expert(
            scene.plan.model_name, task.name, exported, on_received=on_received
        )
    images = scene.held_out[task.name][:NUM_IMAGES]
    answered = ask(
        scene.client,
        scene.plan.model_name,
        images,
        task=task.name,
        labels=task.classes,
        top_k=len(task.classes),
    )
    base = scene.client.get_base(scene.plan.base_name).to_dict()
    with scene.output.stderr.status("asking plain open_clip the same"):
        lay_out(scene.scratch / "plain", weights=exported, base=base)
        plain = log_probabilities(
            scene.scratch / "plain", images, labels=task.classes, templates=task.templates
        )
    found = agreement(answered, plain, labels=task.classes)
    scene.numbers.export = {
        **asdict(found),
        "task": task.name,
        "size_bytes": done.size_bytes,
        "expert": done.etag,
    }
    scene.output.say(
        f"{as_bytes(done.size_bytes)}, expert {short(done.etag)}: {found.num_logits:,} logits of "
        f"{found.num_images} images differ by at most {found.max_abs_logit_difference:.2g}; "
        f"the same label for {found.num_same_label} of {found.num_images}"
    )
