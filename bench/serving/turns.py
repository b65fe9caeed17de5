"""Participants in turns: every round asks each at every concurrency, so that a slow minute hits all."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.serving.participants import Participant, Turn
from bench.serving.plan import ServingPlan
from bench.steps import Steps

PERCENTILES = {"p50_ms": 50, "p95_ms": 95, "p99_ms": 99}


@dataclass(frozen=True)
class Scenario:
    """What is asked, and of whom.

    Attributes:
        name: As the document calls it.
        tasks: Whose experts, in turn; None is a request that names no task.
        participants: By name; ours first.
    """

    name: str
    tasks: Sequence[str | None]
    participants: Mapping[str, Participant]


def take_turns(scenarios: Sequence[Scenario], plan: ServingPlan, steps: Steps) -> dict[str, Any]:
    """Scenario -> participant -> concurrency -> what was measured."""
    everyone = {id(each): each for scenario in scenarios for each in scenario.participants.values()}
    for participant in everyone.values():
        participant.pause()
    found: dict[str, Any] = {
        scenario.name: {
            name: {str(callers): [] for callers in plan.concurrency} for name in scenario.participants
        }
        for scenario in scenarios
    }
    for _ in range(plan.rounds):
        for scenario in scenarios:
            for callers in plan.concurrency:
                for name, participant in scenario.participants.items():
                    turn = Turn(scenario.tasks, callers, plan.warm_up_s, plan.seconds)
                    found[scenario.name][name][str(callers)].append(_taken(participant, turn))
                    steps.done()
    for participant in everyone.values():
        participant.resume()
    return {
        scenario: {
            name: {callers: _summary(turns) for callers, turns in by_concurrency.items()}
            for name, by_concurrency in participants.items()
        }
        for scenario, participants in found.items()
    }


def num_turns(scenarios: Sequence[Scenario], plan: ServingPlan) -> int:
    """How many steps `take_turns` takes."""
    return plan.rounds * len(plan.concurrency) * sum(len(scenario.participants) for scenario in scenarios)


def percentiles_ms(latencies_s: Sequence[float]) -> dict[str, float]:
    """The middle, and what one in twenty and one in a hundred waited longer than."""
    ranked = sorted(latencies_s)
    return {
        name: 1e3 * ranked[min(len(ranked) - 1, len(ranked) * share // 100)]
        for name, share in PERCENTILES.items()
    }


def ratios(ours: Mapping[str, Any], peer: Mapping[str, Any]) -> dict[str, float]:
    """Concurrency -> our throughput over the peer's, the median over the rounds."""
    return {
        callers: statistics.median(
            mine / theirs
            for mine, theirs in zip(ours[callers]["rounds_per_s"], peer[callers]["rounds_per_s"], strict=True)
        )
        for callers in ours
    }


def _taken(participant: Participant, turn: Turn) -> dict[str, Any]:
    participant.resume()
    found = participant.take(turn)
    found["resident_bytes"] = participant.resident_bytes()
    participant.pause()
    return found


def _summary(turns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    latencies = [latency for turn in turns for latency in turn["latencies_s"]]
    answered = sum(turn["statuses"].get("200", 0) for turn in turns)
    rounds = [turn["images"] / turn["elapsed_s"] for turn in turns]
    return {
        "images_per_s": statistics.median(rounds),
        "rounds_per_s": rounds,
        **percentiles_ms(latencies),
        "requests": len(latencies),
        "errors": len(latencies) - answered,
        "resident_bytes": max(turn["resident_bytes"] for turn in turns),
    }
