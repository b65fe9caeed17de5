"""What a benchmark writes: its numbers under its own name, beside the machine, the commit and the date."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.fusion import FusionPlan, run_fusion
from bench.machine import describe_machine
from bench.rebuild import RebuildPlan, run_rebuild
from bench.steps import OnProgress, Steps
from bench.storage import StoragePlan, run_storage
from bench.synthetic import Recipe

SCHEMA = 1
"""Of the documents; keys are only ever added under the same number."""


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        num_parameters: None is the benchmark's own choice.
        num_tasks: None is the benchmark's own choice; the most of them, where several numbers are measured.
        is_quick: Small sizes, to see that it works; such times mean nothing.
    """

    num_parameters: int | None = None
    num_tasks: int | None = None
    is_quick: bool = False


def run(name: str, request: Request, on_progress: OnProgress | None = None) -> dict[str, Any]:
    """The document of the benchmark `fusion`, `rebuild` or `storage`; told (steps done, steps in all)."""
    steps = Steps(on_progress)
    machine = describe_machine()
    measured = _RUNS[name](request, steps)
    return {
        "schema": SCHEMA,
        "benchmark": name,
        "quick": request.is_quick,
        "seed": Recipe().seed,
        "machine": machine,
        name: measured,
    }


def write(document: Mapping[str, Any], path: Path) -> None:
    """The document as a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")


def _fusion(request: Request, steps: Steps) -> dict[str, Any]:
    plan = FusionPlan.quick() if request.is_quick else FusionPlan()
    num_tasks = (request.num_tasks,) if request.num_tasks else plan.num_tasks
    size = request.num_parameters or plan.num_parameters
    return run_fusion(replace(plan, num_parameters=size, num_tasks=num_tasks), steps)


def _rebuild(request: Request, steps: Steps) -> dict[str, Any]:
    plan = RebuildPlan.quick() if request.is_quick else RebuildPlan()
    size = request.num_parameters or plan.num_parameters
    return run_rebuild(
        replace(plan, num_parameters=size, num_tasks=request.num_tasks or plan.num_tasks), steps
    )


def _storage(request: Request, steps: Steps) -> dict[str, Any]:
    plan = StoragePlan.quick() if request.is_quick else StoragePlan()
    if request.num_tasks:
        plan = plan.up_to(request.num_tasks)
    return run_storage(replace(plan, num_parameters=request.num_parameters or plan.num_parameters), steps)


_RUNS: dict[str, Callable[[Request, Steps], dict[str, Any]]] = {
    "fusion": _fusion,
    "rebuild": _rebuild,
    "storage": _storage,
}
