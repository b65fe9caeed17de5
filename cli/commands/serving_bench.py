"""`condu bench serving`: the service against its peers, and every answer against the offline one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.errors import CommandFailedError, CommandUsageError
from cli.options import example
from cli.output import Output, command
from cli.progress import count_gauge

EXAMPLES = example(
    "condu bench serving --json serving.json",
    "condu bench serving --peers open-clip --requests 1000 --seconds 1",
    "condu bench serving --peer-python ray=PATH/python --json serving.json",
)
DEMO = "demo"


def serving(
    *,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", dir_okay=False, help="Every number; report and figures go beside it."
        ),
    ] = None,
    requests: Annotated[
        int | None, typer.Option(min=10, metavar="N", help="Mixed requests whose answers are checked.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, metavar="S", help="Length of one participant's turn.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, metavar="N", help="Turns of each participant.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of deltas, classes, images and requests.")] = 0,
    peers: Annotated[
        str, typer.Option(metavar="LIST", help="Of open-clip, litserve and ray, those to measure; or none.")
    ] = "open-clip,litserve,ray",
    peer_python: Annotated[
        list[str] | None,
        typer.Option(metavar="PEER=FILE", help="The Python that has a peer installed; may be repeated."),
    ] = None,
    base: Annotated[
        str, typer.Option(metavar="NAME", help="demo, or an architecture of open_clip with random weights.")
    ] = DEMO,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small sizes, to see that it works: such times mean nothing.")
    ] = False,
) -> None:
    """Measure the service against its peers, its memory and its overhead, and check each of its answers."""
    chosen = {"mixed_requests": requests, "seconds": seconds, "rounds": rounds, "seed": seed}
    with command(as_json=False) as output:
        document, files = _measured(
            output,
            base,
            {name: value for name, value in chosen.items() if value is not None},
            json_file=json_file,
            peers=_names(peers),
            pythons=_pythons(peer_python or []),
            is_quick=quick,
        )
        _show(output, document, files)


def _measured(
    output: Output,
    base: str,
    chosen: Mapping[str, Any],
    *,
    json_file: Path | None,
    peers: Sequence[str],
    pythons: Mapping[str, str],
    is_quick: bool,
) -> tuple[dict[str, Any], list[Path]]:
    from bench.documents import write
    from bench.errors import BenchError
    from bench.serving.plan import ServingPlan
    from bench.serving.report import write_report
    from bench.serving.run import Peers, run_serving
    from bench.serving.weights import make_base, read_base
    from vlm.errors import UnknownArchitectureError

    plan = replace(ServingPlan.quick() if is_quick else ServingPlan(), **chosen)
    try:
        weights = (
            read_base(Path(__file__).parents[1] / "demo")
            if base == DEMO
            else make_base(name=base, seed=plan.seed)
        )
        if json_file is not None:
            json_file.parent.mkdir(
                parents=True, exist_ok=True
            )  # before minutes are spent on what cannot be kept
        with count_gauge(output, "bench serving") as on_progress:
            document = run_serving(
                weights, plan, peers=Peers(peers, pythons), is_quick=is_quick, on_progress=on_progress
            )
        if json_file is None:
            return document, []
        write(document, json_file)
        return document, write_report(document, json_file.parent, stem=json_file.stem)
    except UnknownArchitectureError as error:
        raise CommandUsageError(str(error), remedy="name another with --base") from error
    except BenchError as error:
        raise CommandFailedError(error.message, remedy=error.remedy) from error
    except (AssertionError, MemoryError, OSError) as error:
        raise CommandFailedError(
            f"the serving benchmark stopped: {error}", remedy="free memory and disk space, or use --quick"
        ) from error


def _show(output: Output, document: Mapping[str, Any], files: Sequence[Path]) -> None:
    from bench.serving.report import serving_tables
    from bench.tables import machine_line

    for table in serving_tables(document):
        output.table(table.headings, table.rows, title=table.title)
        output.say()
    output.note(machine_line(document))
    if document["quick"]:
        output.note("--quick: these sizes are too small for their times to mean anything")
    if files:
        output.note("report: " + ", ".join(str(path) for path in files))
    measured = document["serving"]
    if measured["wrong_answers"]:
        raise CommandFailedError(
            f"{measured['wrong_answers']} of {measured['mixed_requests']} answers were wrong",
            detail="; ".join(measured["mixed"]["examples"]),
            remedy="report it with the JSON file: the service answered what the revision it named does not",
        )


def _names(listed: str) -> list[str]:
    from bench.serving.run import PEERS

    names = [name.strip() for name in listed.split(",") if name.strip() not in {"", "none"}]
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise CommandUsageError(
            f"there is no peer {unknown[0]!r}", remedy=f"give some of {', '.join(PEERS)}, or none"
        )
    return names


def _pythons(given: Sequence[str]) -> dict[str, str]:
    pairs = [each.partition("=") for each in given]
    for name, _, path in pairs:
        if not (name and Path(path).is_file()):
            raise CommandUsageError(f"--peer-python {name!r}: no Python at {path!r}", remedy="give PEER=FILE")
    return {name: path for name, _, path in pairs}
