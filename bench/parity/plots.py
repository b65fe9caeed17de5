"""The figures of the comparison, drawn from its document alone."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.continual.figures.style import (
    BLUE,
    GREY,
    ORANGE,
    VERMILION,
    numbered,
    panels,
    save,
    task_style,
    tidy,
)
from bench.parity.agreement import LARGEST_ERROR

_NORM_COLOURS = {"global_l1": BLUE, "tensor_mean_l1": ORANGE}
_SMALLEST_SHOWN = 1e-17
"""Where an error of exactly zero is drawn on a logarithmic axis."""


def draw_parity(document: Mapping[str, Any], folder: Path, *, stem: str) -> list[Path]:
    """`STEM.agreement.png`, `STEM.passes.png` and `STEM.orders.png` in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return [save(draw(document), folder / f"{stem}.{name}.png") for name, draw in _FIGURES.items()]


def _agreement(document: Mapping[str, Any]) -> Figure:
    figure, (left, right) = panels(2, width=5.2, height=3.6)
    tasks = range(1, len(document["tasks"]) + 1)
    for norm, found in document["norms"].items():
        colour = _NORM_COLOURS[norm]
        ties = [step["near_ties"] for step in found["steps"]]
        left.plot(tasks, ties, "o-", color=colour, label=f"{norm}: near a tie")
        otherwise = [step["decided_otherwise"] for step in found["steps"]]
        left.plot(tasks, otherwise, "s:", color=colour, label=f"{norm}: decided otherwise")
        for kind, line, words in (("steps", "o-", "one fold"), ("chain", "D:", "all folds so far")):
            errors = [max(step["rescaler_error"], _SMALLEST_SHOWN) for step in found[kind]]
            right.plot(tasks, errors, line, color=colour, label=f"{norm}: {words}", markersize=4)
    right.axhline(LARGEST_ERROR, color=VERMILION, linestyle="--", label="the most that parity allows")
    right.set_yscale("log")
    differ = sum(
        step["unified_differs"] + step["masks_differ"]
        for found in document["norms"].values()
        for step in found["steps"]
    )
    left.set_title(
        f"Votes within float32 rounding of a tie, of {document['base']['parameters']:,};\n"
        f"entries that differ anywhere else: {differ}",
        fontsize=10,
    )
    left.set_ylabel("entries", fontsize=9)
    left.set_ylim(bottom=0)
    right.set_title(
        f"Largest relative difference of a rescaler (0 is drawn at {_SMALLEST_SHOWN:.0e})", fontsize=10
    )
    for axes in (left, right):
        _by_number_of_tasks(axes, len(document["tasks"]))
        axes.legend(frameon=False, fontsize=8)
    figure.suptitle("The store against the plain formulas", fontsize=11)
    return figure


def _passes(document: Mapping[str, Any]) -> Figure:
    found, names = document["passes"], numbered(document["tasks"])
    rescalers, moved = np.array(found["rescalers"]), np.array(found["moved"])
    passes = np.arange(len(rescalers))
    figure, (left, right) = panels(2, width=4.8, height=3.8, margins=(1.9, 0.9))
    for task, name in enumerate(names):
        style = {**task_style(task).of_line(), "markersize": 3.5}
        left.plot(passes, rescalers[:, task], **style, label=name)
        right.plot(passes[1:], np.maximum(moved[1:, task], 1e-9), **style)
    left.axhline(1.0, color=GREY, linestyle=":")
    left.set_title("Rescalers rise towards 1 from the second pass on", fontsize=10)
    left.set_ylabel("rescaler", fontsize=9)
    worst = moved[1:].max(axis=1, initial=0.0)
    last = len(passes) - 1
    right.set_title(
        f"Experts move away: up to {worst[0]:.1%} after 1 pass, {worst[-1]:.1%} after {last}", fontsize=10
    )
    right.set_ylabel("relative L2 from the expert before", fontsize=9)
    right.yaxis.set_major_formatter(
        lambda value, _: f"{value:.0%}" if value >= 0.01 or value == 0 else f"{value:.1%}"
    )
    for axes in (left, right):
        axes.set_xlabel("extra passes without a new task", fontsize=9)
        tidy(axes)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8, title="expert of task")
    figure.suptitle("Unifying again without a new task converges, and is not idempotent", fontsize=11)
    return figure


def _orders(document: Mapping[str, Any]) -> Figure:
    found, names = document["orders"], numbered(document["tasks"])
    figure, grid = panels(2, width=4.8, height=3.8, margins=(1.9, 0.9))
    words = {"cosine": "cosine to the original delta", "relative_l2": "relative L2 to the original delta"}
    places = np.arange(1, len(names) + 1)
    for axes, (measure, title) in zip(grid, words.items(), strict=True):
        values = np.array(found[measure])
        for task, name in enumerate(names):
            style = {**task_style(task).of_line(), "linewidth": 0.9, "markersize": 3.5, "alpha": 0.75}
            axes.plot(places, values[:, task], **style, label=name if measure == "cosine" else None)
        mean, once = values.mean(axis=1), float(np.mean(found["one_shot"][measure]))
        axes.plot(places, mean, color="black", linewidth=2.6, label="mean" if measure == "cosine" else None)
        label = "all at once (mean)" if measure == "cosine" else None
        axes.axhline(once, color=VERMILION, linestyle="--", label=label)
        axes.set_title(
            f"{title}:\nfirst {mean[0]:.2f}, last {mean[-1]:.2f}; all at once {once:.2f}", fontsize=10
        )
        _by_number_of_tasks(axes, len(names))
        axes.set_xlabel("learned in place", fontsize=9)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8, title="expert of task")
    figure.suptitle("The order of learning matters: every task once in every place", fontsize=11)
    return figure


def _by_number_of_tasks(axes: Axes, num_tasks: int) -> None:
    axes.set_xticks(range(1, num_tasks + 1))
    axes.set_xlabel("tasks learned", fontsize=9)
    tidy(axes)


_FIGURES: dict[str, Callable[[Mapping[str, Any]], Figure]] = {
    "agreement": _agreement,
    "passes": _passes,
    "orders": _orders,
}
