"""The whole comparison in one document."""

from pathlib import Path
from typing import Any

from bench.machine import describe_machine
from bench.parity.agreement import compare_norm
from bench.parity.checkpoints import Checkpoints
from bench.parity.formulas import NORMS
from bench.parity.orders import rotate_orders
from bench.parity.passes import repeat_passes
from bench.steps import OnProgress, Steps

FORMAT = "condu-parity-1"
DEFAULT_PASSES = 30


def run_parity(
    base: Path, folder: Path, *, num_passes: int = DEFAULT_PASSES, on_progress: OnProgress | None = None
) -> dict[str, Any]:
    """Agreement in both norms, convergence, movement and order dependence, on the fine-tunes of the folder.

    Raises:
        BenchError: A file is missing, or no checkpoint of the base.
    """
    machine = describe_machine()
    checkpoints = Checkpoints.open(base, folder)
    count = len(checkpoints.names)
    steps = Steps(on_progress)
    steps.plan((len(NORMS) + 1) * count + num_passes + count * count)
    norms = {norm: compare_norm(checkpoints, norm, steps.done) for norm in NORMS}
    return {
        "format": FORMAT,
        "machine": machine,
        "base": {"digest": checkpoints.base.digest, "parameters": checkpoints.base.space.num_parameters},
        "tasks": list(checkpoints.names),
        "norms": norms,
        "passes": repeat_passes(checkpoints, NORMS[0], num_passes=num_passes, on_step=steps.done),
        "orders": rotate_orders(checkpoints, NORMS[0], steps.done),
        "agrees": all(found["agrees"] for found in norms.values()),
    }
