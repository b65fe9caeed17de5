"""`condu dataset`: archives of labelled images."""

from pathlib import Path
from typing import Annotated

import typer

from cli.commands.asking import agree_to_remove
from cli.options import DEFAULT_URL, JsonOption, UrlOption, YesOption, example
from cli.output import connected
from cli.progress import bytes_gauge
from cli.units import as_bytes, short
from cli.uploads import body_of

app = typer.Typer(no_args_is_help=True, help="Datasets: archives of labelled images to learn from.")

DigestArgument = Annotated[str, typer.Argument(metavar="DIGEST", help="The dataset's digest.")]


@app.command("add", epilog=example("condu dataset add flowers.tar", "condu dataset add ./flowers"))
def add(
    source: Annotated[
        Path, typer.Argument(metavar="FILE|FOLDER", exists=True, help="A .tar, .tar.gz or .zip, or a folder.")
    ],
    *,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Upload images: a folder per class, or classes.txt and labels.csv; a folder is packed on the fly."""
    with connected(url, as_json=as_json) as (client, output):
        with bytes_gauge(output, f"uploading {source.name}") as on_sent:
            dataset = client.upload_dataset(body_of(source), on_sent=on_sent)
        output.result(dataset.to_dict())
        output.say(f"{dataset.images} images of {len(dataset.classes)} classes: {', '.join(dataset.classes)}")
        output.say(f"digest {dataset.digest}")


@app.command("fetch", epilog=example("condu dataset fetch https://data.example.org/sets/flowers.tar"))
def fetch(
    source: Annotated[str, typer.Argument(metavar="URL", help="Of a .tar, .tar.gz or .zip.")],
    *,
    sha256: Annotated[str | None, typer.Option(metavar="HEX", help="What its sha256 must be.")] = None,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Let the service fetch images by their URL, from a source that it allows (CONDU_FETCH_FROM)."""
    with connected(url, as_json=as_json) as (client, output):
        with output.stderr.status("the service fetches it: that may take minutes"):
            dataset = client.fetch_dataset(source, sha256=sha256)
        output.result(dataset.to_dict())
        output.say(f"{dataset.images} images of {len(dataset.classes)} classes: {', '.join(dataset.classes)}")
        output.say(f"digest {dataset.digest}")


@app.command("list", epilog=example("condu dataset list"))
def list_all(*, url: UrlOption = DEFAULT_URL, as_json: JsonOption = False) -> None:
    """List the stored datasets."""
    with connected(url, as_json=as_json) as (client, output):
        datasets = client.list_datasets()
        output.result({"datasets": datasets})
        rows = [
            (
                row["digest"],
                row.get("format"),
                len(row.get("classes", ())),
                row.get("images"),
                as_bytes(row["size_bytes"]),
            )
            for row in datasets
        ]
        output.table(("digest", "format", "classes", "images", "size"), rows)


@app.command("remove", epilog=example("condu dataset remove DIGEST --yes"))
def remove(
    digest: DigestArgument,
    *,
    agreed: YesOption = False,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Remove a dataset that no unfinished job needs."""
    with connected(url, as_json=as_json) as (client, output):
        agree_to_remove(f"the dataset {short(digest)}", agreed=agreed)
        output.result(client.remove_dataset(digest) or {"removed": digest})
        output.say(f"removed the dataset {short(digest)}")
