"""`condu stats`, `verify`, `sweep`: what the service holds, whether it is whole, and what nothing needs."""

from typing import Annotated, Any

import typer

from cli.errors import CommandFailedError
from cli.options import DEFAULT_URL, JsonOption, UrlOption
from cli.output import Output, connected
from cli.progress import bytes_gauge
from cli.units import as_bytes


def stats(*, url: UrlOption = DEFAULT_URL, as_json: JsonOption = False) -> None:
    """Show what the service holds and how it is."""
    with connected(url, as_json=as_json) as (client, output):
        body = client.stats()
        output.result(body)
        output.table(("what", "value"), list(flattened(body)))


def verify(*, url: UrlOption = DEFAULT_URL, as_json: JsonOption = False) -> None:
    """Read every stored byte back and check it; exit code 1 when something is damaged."""
    with connected(url, as_json=as_json) as (client, output):
        with bytes_gauge(output, "verifying") as on_progress:
            report = client.verify(on_progress)
        show_report(output, report)
        problems = report.get("problems") or []
        if problems:
            raise CommandFailedError(
                f"{len(problems)} stored things are damaged",
                remedy="restore them from a backup, or roll the model back past them",
                body={"report": report},
            )
        output.result(report)
        output.say("everything is whole")


def sweep(
    *,
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove it. Without, only say what would go.")
    ] = False,
    keep_revisions: Annotated[
        int | None,
        typer.Option(min=1, help="Newest revisions of each model that stay; by default the service's."),
    ] = None,
    grace: Annotated[
        float | None, typer.Option("--grace", min=0, metavar="SECONDS", help="Leave alone what is younger.")
    ] = None,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Find the bytes that no model needs any more; a dry run unless --delete is given."""
    with connected(url, as_json=as_json) as (client, output):
        with bytes_gauge(output, "sweeping") as on_progress:
            report = client.sweep(
                delete=delete, keep_revisions=keep_revisions, grace_s=grace, on_progress=on_progress
            )
        output.result(report)
        show_report(output, report)
        if not delete:
            output.say("nothing was removed: this was a dry run, `condu sweep --delete` removes it")


def audit(
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 50,
    before: Annotated[int | None, typer.Option(min=1, help="Only entries before this one.")] = None,
    key_id: Annotated[str | None, typer.Option("--key", metavar="ID", help="Only what this key did.")] = None,
    url: UrlOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Show who changed what, when and from where; the newest first."""
    with connected(url, as_json=as_json) as (client, output):
        entries = client.audit(limit=limit, before=before, key_id=key_id)
        output.result({"entries": entries})
        rows = [
            (
                row["entry"],
                row["at"][:19].replace("T", " "),
                row["who"],
                row["action"],
                row["subject"],
                ", ".join(f"{name}={value}" for name, value in row["facts"].items()),
                row["address"],
            )
            for row in entries
        ]
        output.table(("entry", "when", "who", "what", "on", "facts", "from"), rows)


def show_report(output: Output, report: dict[str, Any]) -> None:
    """A report as a table; what it lists is counted, and shown when it tells of damage."""
    rows = [(name, cell) for name, cell in flattened(report) if name != "problems"]
    output.table(("what", "value"), rows)
    for problem in report.get("problems") or []:
        output.say(f"[red]damaged:[/] {problem}")


def flattened(body: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """The entries of nested objects in dotted names; sizes are put in words, lists are counted."""
    rows: list[tuple[str, str]] = []
    for name, value in body.items():
        dotted = f"{prefix}{name}"
        if isinstance(value, dict):
            rows += flattened(value, f"{dotted}.")
        elif isinstance(value, list):
            rows.append((dotted, str(len(value))))
        elif isinstance(value, int | float) and ("bytes" in name or "bytes" in prefix):
            rows.append((dotted, as_bytes(value)))
        else:
            rows.append((dotted, str(value)))
    return rows
