"""`condu classify` and `condu export`: what a model knows, as answers and as files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import answer_flags as flags
from cli import bulk_flags
from cli.answers import ClassifyAnswer, ImageAnswer
from cli.commands.bulk import classify_in_bulk
from cli.errors import CommandUsageError
from cli.options import (
    DEFAULT_URL,
    DataOption,
    JsonOption,
    ModelArgument,
    TaskArgument,
    TemplateOption,
    UrlOption,
)
from cli.output import Output, command, connected
from cli.progress import bytes_gauge, count_gauge
from cli.units import as_bytes

if TYPE_CHECKING:
    from cli.client import Client

IMAGES_A_REQUEST = 32
OPTIONS = (
    "task",
    "label_set",
    "top_k",
    "k",
    "include_base",
    "weighting",
    "temperature",
    "space",
    "revision",
)


def classify(
    model: ModelArgument,
    images: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[IMAGE...]", exists=True, dir_okay=False, help="JPEG, PNG or WebP."),
    ] = None,
    *,
    bulk_input: bulk_flags.Input = None,
    output_file: bulk_flags.OutputFile = None,
    overwrite: bulk_flags.Overwrite = False,
    batch_size: bulk_flags.BatchSize = None,
    part_size: bulk_flags.PartSize = None,
    ray: bulk_flags.Ray = None,
    actors: bulk_flags.Actors = None,
    folder: DataOption = None,
    task: flags.Task = None,
    label: flags.Label = None,
    labels_file: flags.LabelsFile = None,
    label_set: flags.LabelSet = None,
    template: TemplateOption = None,
    top_k: flags.TopK = None,
    k: flags.K = None,
    include_base: flags.IncludeBase = None,
    weighting: flags.Weighting = None,
    temperature: flags.Temperature = None,
    space: flags.Space = None,
    revision: flags.Revision = None,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Classify images, by a named task's expert or by those whose prototypes are nearest.

    Single images are asked of the service. With --input and --output any number of them is answered into a
    file, by this process and without a service; stopped, the same command goes on where it was.
    """
    asked = {**locals()}
    options = {name: asked[name] for name in OPTIONS} | {"templates": template}
    if bulk_input is not None or output_file is not None or not images:
        with command(as_json=as_json) as output:
            classify_in_bulk(output, asked, labels=read_labels(label, labels_file), options=options)
        return
    with connected(url, as_json=as_json) as (client, output):
        answers = ask(
            client, output, model, images=images, labels=read_labels(label, labels_file), options=options
        )
        show_answers(output, images, answers)


def export(
    model: ModelArgument,
    task: TaskArgument,
    target: Annotated[
        Path, typer.Argument(metavar="OUT.safetensors", dir_okay=False, help="Where the expert goes.")
    ],
    *,
    revision: Annotated[
        int | None, typer.Option(help="The expert of an earlier revision; by default the head.")
    ] = None,
    adapter: Annotated[
        bool,
        typer.Option("--adapter", help="The task's adapter alone, of a model with lora tuning."),
    ] = False,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Write a task's expert as a safetensors file that plain open_clip loads; resumes after a broken line.

    Of a model that learns adapters, the task's is merged into the base's weights.
    """
    with connected(url, as_json=as_json) as (client, output):
        with bytes_gauge(output, f"downloading {task}") as on_received:
            done = client.download_expert(
                model,
                task,
                target,
                revision=revision,
                form="adapter" if adapter else None,
                on_received=on_received,
            )
        output.result(done.to_dict())
        output.say(f"{done.path}: {as_bytes(done.size_bytes)}, expert {done.etag}")


def ask(
    client: "Client",
    output: Output,
    model: str,
    *,
    images: Sequence[Path],
    labels: Sequence[str],
    options: dict[str, Any],
) -> list[ClassifyAnswer]:
    """The service's answers, over as many requests as it takes."""
    answers = []
    with count_gauge(output, f"classifying with {model}") as on_progress:
        for start in range(0, len(images), IMAGES_A_REQUEST):
            batch = [(image.name, image.read_bytes()) for image in images[start : start + IMAGES_A_REQUEST]]
            answers.append(client.classify(model, batch, labels=labels, options=options))
            on_progress(start + len(batch), len(images))
    return answers


def read_labels(given: Sequence[str] | None, file: Path | None) -> list[str]:
    """The labels of the command line or of a file; none means the model's own classes."""
    if given and file is not None:
        raise CommandUsageError("give either --label or --labels-file")
    if file is None:
        return list(given or ())
    return [line.strip() for line in file.read_text().splitlines() if line.strip()]


def show_answers(output: Output, images: Sequence[Path], answers: Sequence[ClassifyAnswer]) -> None:
    """All answers as one document in the form of the route's, or as a table."""
    results: list[ImageAnswer] = [result for answer in answers for result in answer.results]
    document: dict[str, Any] = {**answers[0].to_dict(), "results": [result.to_dict() for result in results]}
    revisions = sorted({answer.revision for answer in answers if answer.revision is not None})
    if len(revisions) > 1:
        output.note(f"[yellow]the model learned meanwhile: the answers are from revisions {revisions}[/]")
        document["revisions"] = revisions
    output.result(document)
    rows = [
        (
            image,
            best_of(result),
            ", ".join(f"{share.task or 'base'} {share.weight:.2f}" for share in result.experts),
        )
        for image, result in zip(images, results, strict=True)
    ]
    output.table(("image", "labels", "answered by"), rows)


def best_of(result: ImageAnswer) -> str:
    """The labels of one image with their probabilities, or why there are none."""
    if result.error:
        return f"error: {result.error.get('detail') if isinstance(result.error, dict) else result.error}"
    return ", ".join(f"{found.label} {100 * found.probability:.1f}%" for found in result.predictions)
