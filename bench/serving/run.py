"""All of `condu bench serving`: the service against its peers, its answers, its memory, its overhead."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.machine import describe_machine
from bench.serving.installation import Installation, lay_out_experts, task_name
from bench.serving.mixed import run_mixed
from bench.serving.overhead import measure_overhead, num_overhead_steps
from bench.serving.participants import (
    Participant,
    Service,
    can_import,
    litserve,
    open_clip_loop,
    ray_serve,
    service,
)
from bench.serving.photographs import make_photographs
from bench.serving.plan import ServingPlan
from bench.serving.switching import cache_bytes, measure_switching
from bench.serving.turns import Scenario, num_turns, ratios, take_turns
from bench.serving.weights import BaseWeights
from bench.steps import OnProgress, Steps
from bench.stores import scratch_folder

SCHEMA = 1
PEERS = ("open-clip", "litserve", "ray")
INSTALL = {"litserve": "pip install litserve==0.2.19", "ray": "pip install 'ray[serve]>=2.50'"}
OURS, HALF = "condu", "condu, half the experts fit"


@dataclass(frozen=True)
class Peers:
    """Who is measured beside the service.

    Attributes:
        names: Of PEERS.
        pythons: Name -> the Python that has the peer installed; else the one that runs this.
    """

    names: Sequence[str] = PEERS
    pythons: Mapping[str, str] = field(default_factory=dict)

    def python(self, name: str) -> str | None:
        """The Python that can run the peer; None where it is not installed."""
        python = self.pythons.get(name, sys.executable)
        return python if can_import(python, "ray.serve" if name == "ray" else name) else None


@dataclass(frozen=True)
class Stage:
    """What all parts of a run share."""

    plan: ServingPlan
    installation: Installation
    folder: Path
    photographs: Path
    contents: Sequence[bytes]
    steps: Steps


def run_serving(
    base: BaseWeights,
    plan: ServingPlan,
    *,
    peers: Peers | None = None,
    is_quick: bool = False,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """The document: its numbers under `serving`, beside the machine, the commit and the date."""
    machine = describe_machine()
    steps = Steps(on_progress)
    steps.plan(plan.num_experts + 2 * plan.mixed_requests + plan.switches + num_overhead_steps(plan))
    with scratch_folder() as folder, _stage(folder, base, plan, steps=steps) as stage:
        measured = _measure(stage, peers or Peers())
    about = {
        "name": base.name,
        "parameters": base.num_parameters,
        "is_made": base.is_made,
        "photograph_bytes": sum(map(len, stage.contents)) // len(stage.contents),
    }
    return {
        "schema": SCHEMA,
        "benchmark": "serving",
        "quick": is_quick,
        "seed": plan.seed,
        "machine": machine,
        "serving": {"base": about, "plan": asdict(plan), **measured},
    }


@contextmanager
def _stage(folder: Path, base: BaseWeights, plan: ServingPlan, *, steps: Steps) -> Iterator[Stage]:
    contents = make_photographs(plan.num_photographs, seed=plan.seed)
    photographs = folder / "photographs"
    photographs.mkdir()
    for place, content in enumerate(contents):
        (photographs / f"{place:04}.jpg").write_bytes(content)
    installation = Installation(folder / "data", base, contents, num_classes=plan.num_classes, seed=plan.seed)
    try:
        for index in range(plan.num_experts):
            installation.learn(index)
            steps.done()
        yield Stage(plan, installation, folder, photographs, contents, steps)
    finally:
        installation.close()


def _measure(stage: Stage, peers: Peers) -> dict[str, Any]:
    plan, folder, steps = stage.plan, stage.folder, stage.steps
    overhead = measure_overhead(stage.installation, stage.contents, plan, steps=steps)
    switching = measure_switching(
        stage.installation, plan, folder=folder, photographs=stage.photographs, steps=steps
    )
    half_bytes = cache_bytes(stage.installation.flat_bytes, plan.num_experts // 2)
    compared = _compare(stage, peers, half_bytes)
    log = folder / "mixed.log"
    with service(
        stage.installation.settings.data, stage.photographs, log, expert_cache_bytes=half_bytes
    ) as checked:
        mixed = run_mixed(checked, stage.installation, plan, folder=folder, steps=steps)
    return {
        **compared,
        "mixed_requests": mixed["requests"],
        "wrong_answers": mixed["wrong_answers"],
        "mixed": mixed,
        "rss_growth_100_to_1000": switching["growth"],
        "switching": switching,
        "hot_overhead_ms": overhead["1"]["overhead_ms"],
        "overhead_ratio_batch_8": overhead["8"]["overhead_ratio"],
        "overhead": overhead,
    }


def _compare(stage: Stage, peers: Peers, half_bytes: int) -> dict[str, Any]:
    plan = stage.plan
    with ExitStack() as stack:
        data, logs = stage.installation.settings.data, stage.folder
        ours = stack.enter_context(service(data, stage.photographs, logs / "service.log"))
        half = stack.enter_context(
            service(data, stage.photographs, logs / "half.log", expert_cache_bytes=half_bytes)
        )
        others, told = _start_peers(stage, peers, stack)
        agreement = {name: _agreement(ours, peer) for name, peer in others.items()}
        everyone: dict[str, Participant] = {OURS: ours, **others}
        tasks = [task_name(index) for index in range(plan.num_experts)]
        scenarios = [
            Scenario("one_expert", tasks[:1], everyone),
            Scenario("eight_mixed", tasks, {OURS: ours, HALF: half, **others}),
            Scenario("aggregation", [None], {OURS: ours}),
        ]
        stage.steps.plan(num_turns(scenarios, plan))
        found = take_turns(scenarios, plan, stage.steps)
    one, mixed = found["one_expert"], found["eight_mixed"]
    return {
        "ratio_to": {name: ratios(one[OURS], one[name]) for name in others},
        "mixed_ratio_to": {name: ratios(mixed[OURS], mixed[name]) for name in others},
        "half_cache_mixed_to_one_expert": ratios(mixed[HALF], one[OURS]),
        "peers": told,
        "agreement": agreement,
        "scenarios": found,
        "half_cache_bytes": half_bytes,
    }


def _start_peers(
    stage: Stage, peers: Peers, stack: ExitStack
) -> tuple[dict[str, Participant], dict[str, Any]]:
    """Those that are here, by name, and what is told of each."""
    orders = {
        "experts": lay_out_experts(stage.installation, stage.folder / "experts"),
        "photographs": str(stage.photographs),
    }
    found: dict[str, Participant] = {}
    told: dict[str, Any] = {}
    for name in peers.names:
        log = stage.folder / f"{name}.log"
        if name == "open-clip":
            found[name] = stack.enter_context(open_clip_loop(orders, stage.photographs, log))
        elif (python := peers.python(name)) is None:
            told[name] = {"status": "not installed", "install": INSTALL[name]}
            continue
        else:
            start = litserve if name == "litserve" else ray_serve
            found[name] = stack.enter_context(start(orders, stage.photographs, log, python=python))
        told[name] = {"status": "measured"}
    return found, told


def _agreement(ours: Service, peer: Participant) -> dict[str, float]:
    """Whether both compute the same thing, as far as pixels that are decoded in other ways let them."""
    pairs = list(zip(ours.answers(task_name(0)), peer.answers(task_name(0)), strict=True))
    same = sum(max(mine, key=mine.__getitem__) == max(their, key=their.__getitem__) for mine, their in pairs)
    differences = [
        abs(mine[label] - their[label]) for mine, their in pairs for label in mine if label in their
    ]
    return {"same_label": same / len(pairs), "largest_probability_difference": max(differences)}
