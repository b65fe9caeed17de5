"""The `condu` command: every command in one tree."""

from typing import Annotated

import typer

from cli.commands import (
    answering,
    backups,
    bases,
    bench,
    datasets,
    jobs,
    keys,
    models,
    serving,
    tasks,
    upkeep,
)
from cli.commands import quickstart as quickstart_command
from cli.exit_codes import MEANINGS
from cli.options import example

EXIT_CODES = "\n\n".join(["Exit codes:", *(f"  {code:>3}  {meaning}" for code, meaning in MEANINGS.items())])

app = typer.Typer(
    name="condu",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a fault of ours is a plain traceback, which can be pasted whole
    epilog=EXIT_CODES,
    help="Learn image tasks one after another on one vision-language model: one base, one unified delta, and "
    "one bit per parameter and task. Start with `condu quickstart`, or with `condu serve`.",
)
SERVICE, TEACH, ASK, KEEP = "The service", "What a model learns", "What a model knows", "Upkeep"

app.command(
    "serve", epilog=example("condu serve --data DIR --host 127.0.0.1 --port 8000"), rich_help_panel=SERVICE
)(serving.serve)
app.command("api", epilog=example("condu api --data DIR --port 8000"), rich_help_panel=SERVICE)(serving.api)
app.command("worker", epilog=example("condu worker --data DIR"), rich_help_panel=SERVICE)(serving.worker)
app.command("migrate", epilog=example("condu migrate --data DIR"), rich_help_panel=SERVICE)(serving.migrate)
app.command(
    "quickstart",
    epilog=example("condu quickstart", "condu quickstart --data DIR --json numbers.json"),
    rich_help_panel=SERVICE,
)(quickstart_command.quickstart)
app.add_typer(bases.app, name="base", rich_help_panel=TEACH)
app.add_typer(models.app, name="model", rich_help_panel=TEACH)
app.add_typer(datasets.app, name="dataset", rich_help_panel=TEACH)
app.add_typer(tasks.app, name="task", rich_help_panel=TEACH)
app.add_typer(jobs.app, name="jobs", rich_help_panel=TEACH)
app.command(
    "classify",
    epilog=example(
        "condu classify zoo a.jpg b.png",
        "condu classify zoo a.jpg --task flowers --top-k 3",
        "condu classify zoo a.jpg --label 'a cat' --label 'a dog'",
        "condu classify zoo --input photos/ --output answers.parquet",
    ),
    rich_help_panel=ASK,
)(answering.classify)
app.command("export", epilog=example("condu export zoo flowers flowers.safetensors"), rich_help_panel=ASK)(
    answering.export
)
app.command("stats", epilog=example("condu stats"), rich_help_panel=KEEP)(upkeep.stats)
app.command("verify", epilog=example("condu verify"), rich_help_panel=KEEP)(upkeep.verify)
app.command("sweep", epilog=example("condu sweep", "condu sweep --delete --grace 0"), rich_help_panel=KEEP)(
    upkeep.sweep
)
app.add_typer(keys.app, name="keys", rich_help_panel=KEEP)
app.command("audit", epilog=example("condu audit", "condu audit --limit 20"), rich_help_panel=KEEP)(
    upkeep.audit
)
app.command(
    "backup",
    epilog=example("condu backup /srv/backups --keep 14", "condu backup s3://bucket/condu --data DIR"),
    rich_help_panel=KEEP,
)(backups.backup)
app.command(
    "restore",
    epilog=example("condu restore /srv/backups --list", "condu restore /srv/backups --data NEW"),
    rich_help_panel=KEEP,
)(backups.restore)
app.add_typer(bench.app, name="bench", rich_help_panel=KEEP)


def show_version(asked: bool) -> None:  # noqa: FBT001 (typer calls it so)
    """Print the version and stop, when asked."""
    if asked:
        from importlib.metadata import version

        typer.echo(f"condu {version('condu')}")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None:
    """Options of `condu` itself."""


def main() -> None:
    """Run the command line; the process ends with one of the documented exit codes."""
    import stamina.instrumentation

    # Its default hook logs each retry to stdout, where only results go.
    stamina.instrumentation.set_on_retry_hooks([])
    app()


if __name__ == "__main__":
    main()
