"""What is known of tasks, as tables for people: one task in full, and tasks against each other."""

from collections.abc import Sequence
from typing import Any

from cli.answers import OverlapAnswer, RoutingAnswer, RoutingPart, TaskAnswer
from cli.output import Output
from cli.units import as_percent

BASE = "(base)"
"""The base's column; in brackets, for a task may be called base."""


def show_task(output: Output, task: TaskAnswer) -> None:
    """A task in full: what it is, how it went over the revisions, and what it is to the other tasks."""
    output.table(("task", task.name), [*_facts(task), *_accuracies(task), *_fidelities(task)])
    _show_drift(output, (task.fidelity or {}).get("history") or ())
    if task.overlap:
        rows = [(each["task"], as_share(each["jaccard"]), as_share(each["share"])) for each in task.overlap]
        output.say()
        output.table(("shares parameters with", "Jaccard", f"of those of {task.name}"), rows)
    _show_routing(output, task)


def show_overlap(output: Output, answer: OverlapAnswer) -> None:
    """The Jaccard index of every two tasks, as a matrix."""
    rows = [
        (task, *(as_share(value) for value in row))
        for task, row in zip(answer.tasks, answer.jaccard, strict=True)
    ]
    output.table((f"revision {answer.revision}", *answer.tasks), rows)


def show_routing(output: Output, answer: RoutingAnswer, part: RoutingPart) -> None:
    """One entry a task and a participant, as a matrix; below it, why rows are empty."""
    names = [BASE if column is None else column for column in answer.columns]
    rows = []
    for row in answer.rows:
        found: Sequence[float] | None = getattr(row, part)
        shown = ["-"] * len(names) if found is None else [as_share(value) for value in found]
        rows.append((row.task, row.images, row.revision, *shown))
    output.table(("images of", "number", "measured in revision", *names), rows)
    for row in answer.rows:
        if row.unrouted is not None:
            output.note(f"{row.task}: {row.unrouted}")


def as_share(share: float) -> str:
    """A share of 1 as a percentage."""
    return as_percent(100 * share)


def number_items(body: dict[str, Any] | None) -> list[tuple[str, float]]:
    """The entries that are numbers."""
    return [(name, value) for name, value in (body or {}).items() if isinstance(value, int | float)]


def _facts(task: TaskAnswer) -> list[tuple[str, object]]:
    return [
        ("learned in revision", task.revision_learned),
        ("classes", ", ".join(task.to_dict().get("classes") or ())),
        ("rescaler", None if task.rescaler is None else f"{task.rescaler:.6g}"),
        ("density", None if task.density is None else as_share(task.density)),
        ("L1 norm", None if task.l1_norm is None else f"{task.l1_norm:.6g}"),
    ]


def _accuracies(task: TaskAnswer) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [
        (f"accuracy: {kind}", as_percent(value)) for kind, value in number_items(task.accuracy)
    ]
    reason = (task.accuracy or {}).get("unmeasured")
    return [*rows, ("accuracy: now", f"- ({reason})")] if reason else rows


def _fidelities(task: TaskAnswer) -> list[tuple[str, object]]:
    reference = (task.fidelity or {}).get("reference")
    return [
        (f"fidelity: {name} to the {reference}", f"{value:.6g}")
        for name, value in number_items(task.fidelity)
    ]


def _show_drift(output: Output, history: Sequence[dict[str, Any]]) -> None:
    """What became of the expert, a row a revision."""
    rows = [
        (
            past["revision"],
            as_percent(past.get("accuracy")),
            f"{past['rescaler']:.4f}",
            as_share(past["density"]),
            f"{past['bits_cleared']:,}",
            f"{past['relative_l2']:.4f}",
            f"{past['cosine']:.4f}",
            past["reference"],
        )
        for past in history
    ]
    headings = ("revision", "accuracy", "rescaler", "density", "bits cleared", "relative L2", "cosine")
    output.say()
    output.table((*headings, "against"), rows)


def _show_routing(output: Output, task: TaskAnswer) -> None:
    if task.routing is None:
        if task.unrouted is not None:
            output.say(f"\nwhere its images are routed is not known: {task.unrouted}")
        return
    routing = task.routing
    rows = [
        (
            share["task"] or BASE,
            as_share(share["chosen_first"]),
            as_share(share["chosen"]),
            as_share(share["weight"]),
        )
        for share in routing["shares"]
    ]
    output.say(
        f"\nwho answers for its {routing['images']} held-out images where no task is named "
        f"(measured in revision {routing['revision']})"
    )
    output.table(("expert", "nearest", "takes part", "mean weight"), rows)
