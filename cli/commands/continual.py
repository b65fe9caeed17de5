"""`condu bench continual`: the papers' protocol, with every method under its own name."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import continual_flags as flags
from cli.errors import CommandFailedError, CommandUsageError
from cli.options import example
from cli.output import Output, command
from cli.progress import work_gauge
from cli.units import as_bytes

if TYPE_CHECKING:
    from bench.continual.plan import Plan
    from bench.continual.runner import BaseFile
    from bench.continual.stage import Reference
    from bench.suites import Suite

DEMO = Path(__file__).resolve().parents[1] / "demo"
CACHE = Path("~/.cache/condu")
SCORES = ("transfer", "average", "last")


EXAMPLES = example(
    "condu bench continual --suite mini --json mini.json",
    "condu bench continual --suite mtil --data FOLDER --architecture ViT-B-16 --weights vit-b-16.safetensors "
    "--json mtil.json",
    "condu bench continual --suite my-tasks/ --setting few-shot --methods condu,individual --json few.json",
)


def continual(
    *,
    json_file: flags.ResultsOption,
    suite: flags.Suite = "mini",
    order: flags.Order = "I",
    setting: flags.Setting = "mtil",
    tuning: flags.Tuning = "full",
    methods: flags.Methods = "all",
    seed: flags.Seed = 0,
    shots: flags.Shots = None,
    data_folder: flags.DataFolder = None,
    cache: flags.Cache = CACHE,
    weights: flags.Weights = None,
    architecture: flags.Architecture = None,
    reference: flags.Reference = None,
    training: flags.Training = None,
    lora_rank: flags.LoraRank = 64,
    rescaler_norm: flags.RescalerNorm = "global_l1",
    unified_dtype: flags.UnifiedDtype = "float32",
    k: flags.K = 4,
    include_base: flags.IncludeBase = True,
    weighting: flags.Weighting = "uniform",
    temperature: flags.Temperature = 0.05,
    space: flags.Space = "logits",
    device: flags.Device = "auto",
) -> None:
    """Learn a suite's tasks one after the other with each method, and ask about all of them after each."""
    asked = {**locals()}
    with command(as_json=False) as output:
        _show(output, *_run(output, asked))


def _run(output: Output, asked: Mapping[str, Any]) -> tuple[dict[str, Any], list[Path]]:
    """The results document, and the tables and figures beside it."""
    from bench.continual.methods import chosen_methods
    from bench.continual.report import write_report
    from bench.continual.runner import features_path, run
    from bench.errors import BenchError
    from store.errors import StoreError
    from vlm.errors import VlmError

    path: Path = asked["json_file"]
    try:
        plan, suite = _plan(asked)
        reference = _reference(asked["reference"])
        output.note(
            f"suite {plan.suite}, order {plan.order}, {plan.setting}, {plan.tuning}, seed {plan.seed}"
        )
        with work_gauge(output, "bench continual") as on_progress:
            document = run(
                plan,
                suite,
                _base(asked),
                methods=chosen_methods(asked["methods"].split(","), has_reference=reference is not None),
                cache=asked["cache"].expanduser(),
                out=path,
                device=asked["device"],
                reference=reference,
                on_progress=on_progress,
            )
        features = features_path(path) if features_path(path).exists() else None
        files = write_report(document, features, path.parent, stem=path.stem)
    except BenchError as error:
        raise CommandFailedError(error.message, remedy=error.remedy) from error
    except (VlmError, StoreError) as error:
        raise CommandFailedError(
            f"the base cannot be used: {error}", remedy="look at --weights and --architecture"
        ) from error
    return document, files


def _plan(asked: Mapping[str, Any]) -> tuple["Plan", "Suite"]:
    from bench.continual.plan import Plan, Routing
    from bench.suites import find_suite, order_of

    suite = find_suite(asked["suite"], data_folder=asked["data_folder"])
    routing = {name: asked[name] for name in ("k", "include_base", "weighting", "temperature", "space")}
    plan = Plan(
        suite=suite.name,
        order=asked["order"],
        tasks=order_of(suite, asked["order"]),
        setting=asked["setting"],
        tuning=asked["tuning"],
        seed=asked["seed"],
        shots=asked["shots"],
        rank=asked["lora_rank"],
        rescaler_norm=asked["rescaler_norm"],
        unified_dtype=asked["unified_dtype"],
        routing=Routing(**routing),
        training=dict(_override(text) for text in asked["training"] or ()),
    )
    return plan, suite


def _override(text: str) -> tuple[str, Any]:
    name, found, value = text.partition("=")
    if not found:
        raise CommandUsageError(
            f"--training {text} is no hyper-parameter", remedy="write it as NAME=VALUE, as in iterations=100"
        )
    try:
        return name, json.loads(value)
    except ValueError as error:
        raise CommandUsageError(
            f"--training {text}: {value} is no number, true, false or null", remedy="write iterations=100"
        ) from error


def _base(asked: Mapping[str, Any]) -> "BaseFile":
    from bench.continual.runner import BaseFile
    from vlm.architecture import resolve_architecture

    weights, named = asked["weights"], asked["architecture"]
    if (weights is None) != (named is None):
        raise CommandUsageError(
            "--weights and --architecture go together",
            remedy="give both, or neither for the demo base",
        )
    if weights is not None and not weights.is_file():
        raise CommandUsageError(f"there is no file {weights}", remedy="give --weights FILE.safetensors")
    if weights is None:
        config = json.loads((DEMO / "base_config.json").read_text())
        return BaseFile("demo", resolve_architecture(config=config), DEMO / "base.safetensors")
    if Path(named).is_file():
        config = json.loads(Path(named).read_text())
        return BaseFile(weights.stem, resolve_architecture(config=config), weights)
    return BaseFile(weights.stem, resolve_architecture(name=named), weights)


def _reference(folder: Path | None) -> "Reference | None":
    from bench.continual.stage import Reference

    return None if folder is None else Reference.read(folder)


def _show(output: Output, document: Mapping[str, Any], files: Sequence[Path]) -> None:
    """The scores as a table, and where the rest went."""
    rows = [
        [
            name,
            *(_percent(found.get(score)) for found in (entry, entry["union"]) for score in SCORES),
            as_bytes(entry["bytes"]) if "bytes" in entry else None,
            entry.get("seconds"),
        ]
        for name, entry in document["methods"].items()
    ]
    headings = ["method", *SCORES, *(f"{score}, all labels" for score in SCORES), "bytes", "seconds"]
    output.table(
        headings, rows, title=f"{document['suite']}, order {document['order']}, seed {document['seed']}"
    )
    output.note("written: " + ", ".join(str(path) for path in files))


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}"
