"""`condu quickstart`: the main job once, on real images, all of it over HTTP."""

from pathlib import Path
from typing import Annotated

import typer

from cli.output import command


def quickstart(
    *,
    folder: Annotated[
        Path, typer.Option("--data", file_okay=False, help="Folder for the service's data.")
    ] = Path("quickstart-data"),
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", dir_okay=False, help="Write every number to this file."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the service; 0 takes a free one.")] = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Remove the data folder of an earlier quickstart first.")
    ] = False,
) -> None:
    """Run the main job on real images: learn task after task, ask after each, weigh what is stored."""
    from cli.quickstart.plan import QuickstartPlan
    from cli.quickstart.story import tell

    with command(as_json=False) as output:
        tell(QuickstartPlan(data=folder, json_file=json_file, port=port, fresh=fresh), output)
