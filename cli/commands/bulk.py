"""`condu classify --input`: any number of images answered into a file, by this process, without a service."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from cli.commands.serving import settings_of
from cli.errors import CommandFailedError, CommandUsageError
from cli.output import Output
from cli.progress import speed_gauge
from cli.units import as_duration

if TYPE_CHECKING:
    from bulk.main import Outcome, Runner
    from bulk.plan import Request
    from catalog.settings import Settings

ALONE = ("overwrite", "batch_size", "part_size", "ray", "actors")


def classify_in_bulk(
    output: Output, asked: Mapping[str, Any], *, labels: Sequence[str], options: Mapping[str, Any]
) -> None:
    """Answer the images of the input into the output, and tell what came of it."""
    _check_words(asked)
    from bulk.errors import BulkError
    from bulk.main import alone, run
    from catalog.errors import CatalogError

    settings = _settings(asked)
    request = _request(asked, labels, options)
    try:
        runner: Runner = alone
        if asked["ray"] is not None:
            from bulk.ray_actors import OverRay

            runner = OverRay(asked["ray"], asked["actors"])
        with speed_gauge(output, f"classifying with {request.model}") as on_progress:
            outcome = run(
                settings,
                request,
                runner=runner,
                on_progress=lambda now: on_progress(now.images, now.total, now.images_per_s),
            )
    except BulkError as error:
        raise CommandFailedError(error.message, remedy=error.remedy) from error
    except CatalogError as error:
        raise CommandFailedError(str(error), remedy="name the data folder with --data") from error
    except KeyboardInterrupt:
        output.note("stopped; the same command goes on where it was")
        raise
    _show(output, outcome)


def _check_words(asked: Mapping[str, Any]) -> None:
    if asked["bulk_input"] is None and asked["output_file"] is None:
        alone = [f"--{name.replace('_', '-')}" for name in ALONE if asked[name]]
        if alone:
            raise CommandUsageError(f"{alone[0]} goes with --input and --output")
        raise CommandUsageError(
            "there is nothing to classify", remedy="name images, or --input FOLDER --output FILE.parquet"
        )
    if asked["bulk_input"] is None or asked["output_file"] is None:
        raise CommandUsageError("--input and --output go together")
    if asked["images"]:
        raise CommandUsageError("give either images or --input")
    if asked["actors"] is not None and asked["ray"] is None:
        raise CommandUsageError("--actors goes with --ray")


def _settings(asked: Mapping[str, Any]) -> "Settings":
    settings = settings_of(data=asked["folder"])
    if settings.database_url is None and not (settings.data / "condu.sqlite").exists():
        raise CommandFailedError(
            f"{settings.data} is no data folder of an installation",
            remedy="name the service's with --data or CONDU_DATA; a bulk job reads it without the service",
        )
    return settings


def _request(asked: Mapping[str, Any], labels: Sequence[str], options: Mapping[str, Any]) -> "Request":
    from bulk.plan import Request
    from vlm.errors import InvalidOptionsError
    from vlm.prediction_options import PredictionOptions

    given = {name: value for name, value in options.items() if value is not None and name != "revision"}
    sizes = {name: asked[name] for name in ("batch_size", "part_size") if asked[name] is not None}
    if "templates" in given:
        given["templates"] = tuple(given["templates"])
    try:
        answer = PredictionOptions(**given, labels=tuple(labels) or None)
    except InvalidOptionsError as error:
        raise CommandUsageError(str(error)) from error
    return Request(
        model=asked["model"],
        input=asked["bulk_input"],
        output=asked["output_file"],
        options=answer,
        revision=asked["revision"],
        is_overwriting=asked["overwrite"],
        **sizes,
    )


def _show(output: Output, outcome: "Outcome") -> None:
    output.result({**asdict(outcome), "output": str(outcome.output)})
    told = [f"{outcome.images} images"]
    told += [f"{outcome.failed} of them with an error"] if outcome.failed else []
    told += [f"{outcome.skipped} other files passed over"] if outcome.skipped else []
    told += [f"{outcome.resumed} answered before"] if outcome.resumed else []
    output.say(f"[bold]{escape(str(outcome.output))}[/]: {', '.join(told)}")
    state = "as it came" if outcome.revision is None else f"revision {outcome.revision}"
    speed = f", {outcome.images_per_s:.1f} images/s" if outcome.images_per_s else ""
    output.say(f"model {outcome.model}, {state}, {as_duration(outcome.duration_s)}{speed}")
