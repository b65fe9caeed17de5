"""`condu task`: what a model learns, one task at a time."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cli import training_flags as training
from cli.answers import JobAnswer, RoutingPart, TaskAnswer
from cli.client import Client
from cli.commands.asking import agree_to_remove
from cli.errors import CommandUsageError
from cli.options import (
    DEFAULT_URL,
    JsonOption,
    ModelArgument,
    TaskArgument,
    TemplateOption,
    UrlOption,
    WatchOption,
    YesOption,
    example,
)
from cli.output import Output, connected
from cli.progress import bytes_gauge
from cli.task_page import show_overlap, show_routing, show_task
from cli.units import as_percent
from cli.uploads import body_of
from cli.watching import follow, succeeded

app = typer.Typer(no_args_is_help=True, help="Tasks: what a model learns, one at a time.")

DIGEST = re.compile(r"[0-9a-f]{64}")

RevisionOption = Annotated[int | None, typer.Option(min=1, help="An earlier revision; by default the head.")]


@app.command(
    "add",
    epilog=example(
        "condu task add zoo flowers --dataset flowers.tar",
        "condu task add zoo digits --dataset ./digits --template 'the digit {}.' --iterations 500 --no-watch",
    ),
)
def add(
    model: ModelArgument,
    name: TaskArgument,
    *,
    dataset: Annotated[
        str,
        typer.Option(
            metavar="FILE|FOLDER|DIGEST", help="A .tar, .tar.gz or .zip, a folder, or an uploaded dataset."
        ),
    ],
    template: TemplateOption = None,
    watch: WatchOption = True,
    iterations: training.Iterations = None,
    batch_size: training.BatchSize = None,
    accumulation: training.Accumulation = None,
    learning_rate: training.LearningRate = None,
    weight_decay: training.WeightDecay = None,
    warmup_iterations: training.WarmupIterations = None,
    label_smoothing: training.LabelSmoothing = None,
    betas: training.Betas = None,
    gradient_clip: training.GradientClip = None,
    seed: training.Seed = None,
    test_fraction: training.TestFraction = None,
    shots: training.Shots = None,
    augment: training.Augment = None,
    amp: training.Amp = None,
    checkpoint_every: training.CheckpointEvery = None,
    keep: training.Keep = None,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Learn a task from labelled images: fine-tune, then fold what was learned into the model."""
    options = training.given(
        iterations=iterations,
        batch_size=batch_size,
        accumulation=accumulation,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup_iterations=warmup_iterations,
        label_smoothing=label_smoothing,
        betas=betas,
        gradient_clip=gradient_clip,
        seed=seed,
        test_fraction=test_fraction,
        shots=shots,
        augment=augment,
        amp=amp,
        checkpoint_every=checkpoint_every,
        keep=keep,
    )
    with connected(url, as_json=as_json) as (client, output):
        digest = stored_dataset(client, output, dataset)
        job = client.submit_task(model, name, dataset=digest, templates=template or (), training=options)
        finish(client, output, job, model=model, task=name, watch=watch)


@app.command(
    "import",
    epilog=example("condu task import zoo birds --checkpoint birds.safetensors --class crow --class owl"),
)
def import_checkpoint(
    model: ModelArgument,
    name: TaskArgument,
    *,
    checkpoint: Annotated[
        Path,
        typer.Option(
            exists=True, dir_okay=False, help="Fine-tuned weights (.safetensors) of the model's base."
        ),
    ],
    class_name: Annotated[list[str] | None, typer.Option("--class", help="A class; repeat for each.")] = None,
    classes_file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="File with one class a line, instead of --class."),
    ] = None,
    template: TemplateOption = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|FOLDER|DIGEST",
            help="Its images, for prototypes and accuracies; text alone without.",
        ),
    ] = None,
    watch: WatchOption = True,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Fold in a checkpoint that was fine-tuned elsewhere, from the same base."""
    with connected(url, as_json=as_json) as (client, output):
        classes = listed(class_name, classes_file, flag="--class", file_flag="--classes-file")
        digest = None if dataset is None else stored_dataset(client, output, dataset)
        with bytes_gauge(output, f"uploading {checkpoint.name}") as on_sent:
            job = client.import_task(
                model,
                name,
                checkpoint,
                classes=classes,
                templates=template or (),
                dataset=digest,
                on_sent=on_sent,
            )
        finish(client, output, job, model=model, task=name, watch=watch)


@app.command("list", epilog=example("condu task list zoo"))
def list_all(model: ModelArgument, *, url: UrlOption = DEFAULT_URL, as_json: JsonOption = False) -> None:
    """List the tasks of a model's head."""
    with connected(url, as_json=as_json) as (client, output):
        tasks = client.list_tasks(model)
        output.result({"tasks": [task.to_dict() for task in tasks]})
        headings = ("task", "revision", "classes", "zero-shot", "individual", "expert", "now")
        output.table((*headings, "rescaler", "density"), [task_row(task) for task in tasks])


@app.command("show", epilog=example("condu task show zoo flowers"))
def show(
    model: ModelArgument, name: TaskArgument, *, url: UrlOption = DEFAULT_URL, as_json: JsonOption = False
) -> None:
    """Show one task: how good and how faithful its expert is and was, what it shares, who answers for it."""
    with connected(url, as_json=as_json) as (client, output):
        task = client.get_task(model, name)
        output.result(task.to_dict())
        show_task(output, task)


@app.command("overlap", epilog=example("condu task overlap zoo"))
def overlap(
    model: ModelArgument,
    *,
    revision: RevisionOption = None,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Show which parameters the tasks of a model share: those that two own, of those that either owns."""
    with connected(url, as_json=as_json) as (client, output):
        answer = client.get_overlap(model, revision=revision)
        output.result(answer.to_dict())
        show_overlap(output, answer)


@app.command("routing", epilog=example("condu task routing zoo", "condu task routing zoo --show weight"))
def routing(
    model: ModelArgument,
    *,
    part: Annotated[
        RoutingPart,
        typer.Option(
            "--show",
            help="Of each task's images: those nearest to a task, those it takes part in, its mean weight.",
        ),
    ] = "chosen_first",
    revision: RevisionOption = None,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Show who answers for the held-out images of each task when no task is named (a confusion matrix)."""
    with connected(url, as_json=as_json) as (client, output):
        answer = client.get_routing(model, revision=revision)
        output.result(answer.to_dict())
        show_routing(output, answer, part)


@app.command("remove", epilog=example("condu task remove zoo flowers --yes"))
def remove(
    model: ModelArgument,
    name: TaskArgument,
    *,
    agreed: YesOption = False,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Stop serving a task; its imprint on the unified delta stays until a rollback past it."""
    with connected(url, as_json=as_json) as (client, output):
        agree_to_remove(f"the task {name} of {model}", agreed=agreed)
        output.result(client.remove_task(model, name) or {"removed": name})
        output.say(f"{model} no longer serves {name}; what it learned still shapes the unified delta")


def stored_dataset(client: Client, output: Output, source: str) -> str:
    """The digest of a dataset in the service; a file or folder is uploaded first."""
    path = Path(source)
    if not path.exists() and DIGEST.fullmatch(source):
        return source
    with bytes_gauge(output, f"uploading {path.name}") as on_sent:
        dataset = client.upload_dataset(body_of(path), on_sent=on_sent)
    output.note(f"{dataset.images} images of {len(dataset.classes)} classes")
    return dataset.digest


def listed(given: Sequence[str] | None, file: Path | None, *, flag: str, file_flag: str) -> list[str]:
    """Names from a repeated flag or from a file with one a line; CommandUsageError for both or none."""
    if bool(given) == (file is not None):
        raise CommandUsageError(f"give either {flag} (repeated) or {file_flag}")
    names = (
        list(given or ())
        if file is None
        else [line.strip() for line in file.read_text().splitlines() if line.strip()]
    )
    if not names:
        raise CommandUsageError(f"{file} names nothing", remedy="write one name a line")
    return names


def finish(client: Client, output: Output, job: JobAnswer, *, model: str, task: str, watch: bool) -> None:
    """The end of a submission: the job's end when it is watched, its id when not."""
    if watch:
        job = succeeded(follow(client, output, job))
        output.result({"job": job.to_dict()})
        output.say(f"{model} has learned {task}")
        if not output.as_json:
            show_task(output, client.get_task(model, task))
    else:
        output.result({"job": job.to_dict()})
        output.say(f"job {job.id} is {job.state}; follow it with: condu jobs watch {job.id}")


def task_row(task: TaskAnswer) -> tuple[object, ...]:
    """A task in one line."""
    accuracy = task.accuracy or {}
    return (
        task.name,
        task.revision_learned,
        len(task.to_dict().get("classes") or ()),
        *(as_percent(accuracy.get(kind)) for kind in ("zero_shot", "individual", "expert", "now")),
        None if task.rescaler is None else f"{task.rescaler:.4f}",
        None if task.density is None else as_percent(100 * task.density),
    )
