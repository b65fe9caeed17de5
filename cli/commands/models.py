"""`condu model`: a base plus all it has learned."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.answers import ModelAnswer
from cli.commands.asking import agree_to_remove
from cli.options import DEFAULT_URL, JsonOption, ModelArgument, UrlOption, YesOption, example
from cli.output import Output, connected
from cli.progress import bytes_gauge
from cli.storage_table import storage_rows
from cli.units import as_bytes, short

app = typer.Typer(no_args_is_help=True, help="Models: a base plus all it has learned.")


@app.command(
    "create",
    epilog=example(
        "condu model create zoo --base vit-b-16",
        "condu model create zoo --base vit-b-16 --tuning lora --lora-rank 64",
    ),
)
def create(
    name: ModelArgument,
    *,
    base: Annotated[str, typer.Option(help="Name of the base it starts from.")],
    tuning: Annotated[
        Literal["full", "lora"] | None,
        typer.Option(help="What a task may change: both towers, or low-rank adapters on them."),
    ] = None,
    lora_rank: Annotated[int | None, typer.Option(help="Of the adapters.")] = None,
    lora_seed: Annotated[
        int | None, typer.Option(help="What all adapters of the model start from is drawn from it.")
    ] = None,
    rescaler_norm: Annotated[
        Literal["global_l1", "tensor_mean_l1"] | None,
        typer.Option(help="The norm that rescalers keep: the paper's, or that of its released code."),
    ] = None,
    unified_dtype: Annotated[
        Literal["float32", "bfloat16", "int8", "int4"] | None,
        typer.Option(help="How the unified delta is stored."),
    ] = None,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Create a model that has learned nothing yet."""
    with connected(url, as_json=as_json) as (client, output):
        model = client.create_model(
            name,
            base=base,
            tuning=tuning,
            lora_rank=lora_rank,
            lora_seed=lora_seed,
            rescaler_norm=rescaler_norm,
            unified_dtype=unified_dtype,
        )
        output.result(model.to_dict())
        output.say(
            f"created the model {name} on {base}; "
            f"teach it something: condu task add {name} TASK --dataset FILE.tar"
        )


@app.command("list", epilog=example("condu model list"))
def list_all(*, url: UrlOption = DEFAULT_URL, as_json: JsonOption = False) -> None:
    """List the models."""
    with connected(url, as_json=as_json) as (client, output):
        models = client.list_models()
        output.result({"models": [model.to_dict() for model in models]})
        rows = [(model.name, model.base, model.head_revision, ", ".join(model.tasks)) for model in models]
        output.table(("model", "base", "head revision", "tasks"), rows)


@app.command("show", epilog=example("condu model show zoo"))
def show(name: ModelArgument, *, url: UrlOption = DEFAULT_URL, as_json: JsonOption = False) -> None:
    """Show a model: its tasks, its revisions and what it takes on disk."""
    with connected(url, as_json=as_json) as (client, output):
        model = client.get_model(name)
        revisions = client.list_revisions(name)
        output.result({**model.to_dict(), "revisions": revisions})
        show_model(output, model)
        if revisions:
            rows = [
                (row["number"], row["cause"], row["parent"], len(row["tasks"]), short(row["manifest"]))
                for row in revisions
            ]
            output.say()
            output.table(("revision", "cause", "parent", "tasks", "manifest"), rows)


@app.command("rollback", epilog=example("condu model rollback zoo", "condu model rollback zoo --revision 3"))
def rollback(
    name: ModelArgument,
    *,
    revision: Annotated[int | None, typer.Option(help="Where to go; by default one back.")] = None,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Move a model's head to an earlier revision; nothing is deleted, so one can go forward again."""
    with connected(url, as_json=as_json) as (client, output):
        answer = client.rollback_model(name, revision=revision)
        output.result(answer)
        output.say(f"the head of {name} is now revision {answer.get('head_revision')}")


@app.command("remove", epilog=example("condu model remove zoo --yes"))
def remove(
    name: ModelArgument,
    *,
    agreed: YesOption = False,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Remove a model with all its tasks and revisions; its bytes go with the next sweep."""
    with connected(url, as_json=as_json) as (client, output):
        agree_to_remove(f"the model {name} with all its tasks", agreed=agreed)
        output.result(client.remove_model(name) or {"removed": name})
        output.say(f"removed the model {name}; `condu sweep --delete` frees its bytes")


@app.command("adapter", epilog=example("condu model adapter zoo start.safetensors"))
def adapter(
    name: ModelArgument,
    target: Annotated[
        Path, typer.Argument(metavar="OUT.safetensors", dir_okay=False, help="Where the adapter goes.")
    ],
    *,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Write what a model's adapters start from, so that one can be trained elsewhere and imported."""
    with connected(url, as_json=as_json) as (client, output):
        with bytes_gauge(output, f"downloading the start of {name}'s adapters") as on_received:
            done = client.download_adapter(name, target, on_received=on_received)
        output.result(done.to_dict())
        output.say(
            f"{done.path}: {as_bytes(done.size_bytes)}; train from these values, then: "
            f"condu task import {name} TASK --checkpoint FILE.safetensors"
        )


@app.command(
    "export",
    epilog=example(
        "condu model export zoo zoo.condu", "condu model export zoo zoo.condu --without-base --revision 3"
    ),
)
def export(
    name: ModelArgument,
    target: Annotated[
        Path, typer.Argument(metavar="OUT.condu", dir_okay=False, help="Where the bundle goes.")
    ],
    *,
    without_base: Annotated[
        bool,
        typer.Option("--without-base", help="Leave the base out: whoever imports the bundle must have it."),
    ] = False,
    revision: Annotated[int | None, typer.Option(help="An earlier revision; by default the head.")] = None,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Write a whole model as one file that another installation imports; resumes after a broken line."""
    with connected(url, as_json=as_json) as (client, output):
        with bytes_gauge(output, f"downloading {name}") as on_received:
            done = client.download_bundle(
                name, target, without_base=without_base, revision=revision, on_received=on_received
            )
        output.result(done.to_dict())
        output.say(
            f"{done.path}: {as_bytes(done.size_bytes)}, bundle {done.etag}; "
            f"take it in elsewhere: condu model import {done.path.name}"
        )


@app.command(
    "import", epilog=example("condu model import zoo.condu", "condu model import zoo.condu --name zoo-2")
)
def import_bundle(
    bundle: Annotated[
        Path,
        typer.Argument(
            metavar="BUNDLE.condu", exists=True, dir_okay=False, help="What `condu model export` wrote."
        ),
    ],
    *,
    name: Annotated[
        str | None, typer.Option(help="What the model is to be called; by default as in the bundle.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="What its base is to be called where it is new here; same default.")
    ] = None,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Register the model of a bundle; every byte is checked, then all of it appears at once or nothing."""
    with connected(url, as_json=as_json) as (client, output):
        with bytes_gauge(output, f"uploading {bundle.name}") as show_sent:

            def on_sent(sent_bytes: int, size_bytes: int) -> None:
                show_sent(sent_bytes, size_bytes)
                if sent_bytes == size_bytes:
                    output.note("all of it is sent; the service hashes and checks every byte of it")

            model = client.import_bundle(bundle, name=name, base=base, on_sent=on_sent)
        output.result(model.to_dict())
        whence = "which came with it" if model.base_is_new else "which was here already"
        output.say(f"imported the model {model.name} on the base {model.base}, {whence}")
        show_model(output, model)


def show_model(output: Output, model: ModelAnswer) -> None:
    """A model in full."""
    output.table(
        ("model", model.name),
        (
            ("base", model.base),
            ("tuning", model.tuning if model.lora_rank is None else f"lora, rank {model.lora_rank}"),
            ("head revision", model.head_revision if model.head_revision is not None else "none yet"),
            ("tasks", ", ".join(model.tasks) or "none yet"),
        ),
    )
    if model.storage is not None:
        output.say()
        output.table(("stored", "size"), storage_rows(model.storage))
