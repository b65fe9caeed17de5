"""`condu bench load`: many clients at once, for minutes, on a service that it starts itself."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.errors import CommandFailedError
from cli.options import example
from cli.output import command
from cli.progress import count_gauge

EXAMPLES = example(
    "condu bench load --json load.json",
    "condu bench load --clients 16 --seconds 60 --pause 0 --json load.json",
)


def load(
    *,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", dir_okay=False, help="Every number; a report goes beside it."),
    ] = None,
    clients: Annotated[int | None, typer.Option(min=5, max=1000, metavar="N", help="Connections.")] = None,
    seconds: Annotated[float | None, typer.Option(min=1, metavar="S", help="How long they go on.")] = None,
    pause: Annotated[
        float | None,
        typer.Option(min=0, metavar="TIMES", help="Times the pauses between requests; 0 has none."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of deltas, images, pauses and turns.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small sizes, to see that it works: such times mean nothing.")
    ] = False,
) -> None:
    """Measure the api under many mixed clients: its errors, latencies, memory, connections and files."""
    from bench.documents import write
    from bench.errors import BenchError
    from bench.load.plan import LoadPlan
    from bench.load.report import load_tables, targets, write_report
    from bench.load.run import run_load
    from bench.serving.weights import read_base
    from bench.tables import machine_line

    given = {"num_clients": clients, "seconds": seconds, "pause": pause, "seed": seed}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    plan = replace(LoadPlan.quick() if quick else LoadPlan(), **chosen)
    with command(as_json=False) as output:
        try:
            if json_file is not None:
                json_file.parent.mkdir(parents=True, exist_ok=True)
            with count_gauge(output, "bench load") as on_progress:
                base = read_base(Path(__file__).parents[1] / "demo")
                document = run_load(base, plan, is_quick=quick, on_progress=on_progress)
        except BenchError as error:
            raise CommandFailedError(error.message, remedy=error.remedy) from error
        except (MemoryError, OSError) as error:
            raise CommandFailedError(
                f"the load benchmark stopped: {error}", remedy="free memory and disk space, or use --quick"
            ) from error
        for table in load_tables(document):
            output.table(table.headings, table.rows, title=table.title)
            output.say()
        output.note(machine_line(document))
        if json_file is not None:
            write(document, json_file)
            output.note(f"report: {write_report(document, json_file.parent, stem=json_file.stem)}")
        missed = [each for each in targets(document["load"]) if not each.is_met]
        if missed and not quick:
            raise CommandFailedError(
                "not everything that is promised was kept",
                detail="; ".join(f"{each.says}: {each.found}" for each in missed),
                remedy="see what else ran on the machine; docs/load-benchmark.md says how to read it",
            )
