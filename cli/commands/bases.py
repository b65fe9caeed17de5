"""`condu base`: the pre-trained models that everything starts from."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.answers import BaseAnswer
from cli.commands.asking import agree_to_remove
from cli.errors import CommandUsageError
from cli.options import DEFAULT_URL, BaseArgument, JsonOption, UrlOption, YesOption, example
from cli.output import Output, connected
from cli.progress import bytes_gauge
from cli.units import as_bytes, short

app = typer.Typer(no_args_is_help=True, help="Bases: the pre-trained models that everything starts from.")


@app.command(
    "add",
    epilog=example(
        "condu base add vit-b-16 --architecture ViT-B-16 --pretrained openai",
        "condu base add mine --weights clip.safetensors --config clip.json",
    ),
)
def add(
    name: BaseArgument,
    *,
    architecture: Annotated[str | None, typer.Option(help="Name of an open_clip architecture.")] = None,
    config: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="JSON file with an open_clip model config."),
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="Tag of open_clip weights that the service fetches from their hub.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Weights of this machine (.safetensors) to upload."),
    ] = None,
    weights_url: Annotated[
        str | None,
        typer.Option(
            "--weights-url",
            metavar="URL",
            help="Of weights that the service fetches, from a source that it allows.",
        ),
    ] = None,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Register a base, from a hub (--pretrained), a file (--weights) or a URL (--weights-url)."""
    with connected(url, as_json=as_json) as (client, output):
        if [pretrained, weights, weights_url].count(None) != 2:
            raise CommandUsageError(
                "give either --pretrained or --weights or --weights-url",
                next_command="condu base add --help",
            )
        if (architecture is None) == (config is None):
            raise CommandUsageError(
                "give either --architecture or --config", next_command="condu base add --help"
            )
        if weights is None:
            with output.stderr.status("the service fetches the weights: the first time that takes minutes"):
                base = client.register_base(
                    name,
                    architecture=architecture,
                    config=read_config(config),
                    pretrained=pretrained,
                    weights_url=weights_url,
                )
        else:
            with bytes_gauge(output, f"uploading {weights.name}") as on_sent:
                base = client.upload_base(
                    name, weights, architecture=architecture, config=read_config(config), on_sent=on_sent
                )
        show_base(output, base)


@app.command("list", epilog=example("condu base list"))
def list_all(*, url: UrlOption = DEFAULT_URL, as_json: JsonOption = False) -> None:
    """List the bases."""
    with connected(url, as_json=as_json) as (client, output):
        bases = client.list_bases()
        output.result({"bases": [base.to_dict() for base in bases]})
        rows = [
            (
                base.name,
                base.architecture,
                f"{base.parameters:,}",
                as_bytes(base.size_bytes),
                short(base.digest),
            )
            for base in bases
        ]
        output.table(("base", "architecture", "parameters", "size", "digest"), rows)


@app.command("show", epilog=example("condu base show vit-b-16"))
def show(name: BaseArgument, *, url: UrlOption = DEFAULT_URL, as_json: JsonOption = False) -> None:
    """Show one base."""
    with connected(url, as_json=as_json) as (client, output):
        show_base(output, client.get_base(name))


@app.command("remove", epilog=example("condu base remove old --yes"))
def remove(
    name: BaseArgument,
    *,
    agreed: YesOption = False,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Remove a base that no model uses; its bytes go with the next sweep."""
    with connected(url, as_json=as_json) as (client, output):
        agree_to_remove(f"the base {name}", agreed=agreed)
        output.result(client.remove_base(name) or {"removed": name})
        output.say(f"removed the base {name}; `condu sweep --delete` frees its bytes")


def show_base(output: Output, base: BaseAnswer) -> None:
    """A base in full."""
    output.result(base.to_dict())
    output.table(
        ("base", base.name),
        (
            ("architecture", base.architecture or "(by config)"),
            ("parameters", f"{base.parameters:,}"),
            ("size", as_bytes(base.size_bytes)),
            ("digest", base.digest),
        ),
    )


def read_config(file: Path | None) -> Any:
    """The JSON of a model config; CommandUsageError when the file is none."""
    if file is None:
        return None
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise CommandUsageError(f"{file} is not JSON", detail=str(error)) from error
