"""What changes from step to step: accuracy of each task, bytes, fidelity."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bench.continual.figures.style import (
    GREY,
    METHOD_STYLES,
    OTHERS,
    numbered,
    panels,
    plain,
    spread,
    task_style,
    tidy,
)
from bench.continual.reading import Accuracies, MethodResult, Reading
from bench.tables import size_text

_FIDELITY = {
    "relative_l2": "distance to the original delta (relative L2)",
    "cosine": "cosine to the original delta",
    "density": "share of mask bits set",
}

_Point = tuple[str, float, float]


def accuracy_curves(reading: Reading) -> Figure | None:
    """A panel a task: its accuracy after each step, a line a method; the step that learns it is marked."""
    shown = [method for method in reading.methods if method.num_steps > 0]
    if not shown:
        return None
    figure, grid = panels(len(reading.tasks), width=3.0, height=2.7)
    steps = range(1, len(reading.tasks) + 1)
    for task, axes in enumerate(grid):
        for method in sorted(shown, key=_drawn_last):
            style = METHOD_STYLES.get(method.name, OTHERS)
            axes.plot(steps, method.matrices["own"][:, task], **style.of_line())
        axes.axvline(task + 1, color=GREY, linewidth=6, alpha=0.18, zorder=0)
        axes.set_title(f"{plain(reading.tasks[task])}", fontsize=10)
        axes.set_xticks(steps)
        axes.set_ylim(bottom=0)
        tidy(axes, grid="y")
        if axes.get_subplotspec().is_first_col():  # type: ignore[union-attr]
            axes.set_ylabel("accuracy, percent", fontsize=9)
        axes.set_xlabel("tasks learned", fontsize=8)
    _legend_of_methods(figure, shown)
    figure.suptitle(
        f"Accuracy on each task as tasks are learned; grey: the step that learns it\n{reading.title}",
        fontsize=11,
    )
    return figure


def _drawn_last(method: MethodResult) -> int:
    """Faint lines first, ConDU's on top."""
    order = list(METHOD_STYLES)
    return -order.index(method.name) if method.name in order else -len(order)


def _legend_of_methods(figure: Figure, shown: Sequence[MethodResult]) -> None:
    names = [method.name for method in shown]
    axes = figure.axes[0]
    handles, labels = [], []
    for name, style in METHOD_STYLES.items():
        if name in names:
            handles += axes.plot([], [], **style.of_line())
            labels.append(name)
    others = [name for name in names if name not in METHOD_STYLES]
    if others:
        handles += axes.plot([], [], **OTHERS.of_line())
        labels.append(f"others: {', '.join(others)}")
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=9)


def storage_by_tasks(reading: Reading) -> Figure | None:
    """Bytes against tasks, a line for all methods that keep the same; beside it, what the bytes buy."""
    shown = [method for method in reading.methods if np.isfinite(method.bytes_by_step).any()]
    if not shown:
        return None
    figure, (left, right) = panels(2, columns=2, width=5.6, height=4.3)
    _bytes_lines(left, shown, len(reading.tasks))
    _accuracy_for_bytes(right, shown)
    figure.suptitle(f"What is stored, and what it buys\n{reading.title}", fontsize=11)
    return figure


def _bytes_lines(axes: Axes, shown: Sequence[MethodResult], num_tasks: int) -> None:
    steps = range(1, num_tasks + 1)
    for members, values in _grouped(shown, [method.bytes_by_step for method in shown]):
        name = _spokesman(members)
        style = METHOD_STYLES.get(name, task_style(len(axes.lines)))
        axes.plot(steps, values, label=fill(", ".join(members), 52), **style.of_line())
    hungry = [m for m in shown if np.nan_to_num(m.kept_bytes_by_step - m.bytes_by_step).max() > 0]
    groups = _grouped(hungry, [method.kept_bytes_by_step for method in hungry])
    for (members, values), dashes in zip(groups, cycle(("-.", (0, (1, 1)), (0, (6, 2)))), strict=False):
        colour = METHOD_STYLES[members[0]].colour if members[0] in METHOD_STYLES else GREY
        label = fill(f"{', '.join(members)}: what learning the next task needs", 52)
        axes.plot(steps, values, color=colour, linestyle=dashes, linewidth=1.3, label=label)
    axes.set_ylim(0, 1.55 * axes.get_ylim()[1])  # room for the legend
    axes.set_xticks(steps)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: size_text(value)))
    tidy(axes)
    axes.set_xlabel("tasks learned", fontsize=9)
    axes.set_ylabel("bytes kept to answer for them, base included", fontsize=9)
    axes.set_title("Storage against tasks", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def _accuracy_for_bytes(axes: Axes, shown: Sequence[MethodResult]) -> None:
    """Last against the bytes after the last step; only methods that have come to their end."""
    points = [
        (method.name, float(method.bytes_by_step[-1]), found.last)
        for method in sorted(shown, key=_drawn_last)
        if (found := method.scores()) is not None
    ]
    points_end = max((size for _, size, _ in points), default=1.0)
    for name, size, last in points:
        style = METHOD_STYLES.get(name, OTHERS)
        colour = GREY if style is OTHERS else style.colour
        axes.plot(size, last, style.marker or "o", color=colour, markersize=7)
    for cluster in _clusters(points):
        _label(axes, cluster, gap=0.042 * _extent([last for *_, last in points]), shift=0.05 * points_end)
    axes.set_xlim(0, 1.35 * points_end)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size_text(value)))
    tidy(axes)
    axes.set_xlabel("bytes kept after the last task, base included", fontsize=9)
    axes.set_ylabel("Last, percent", fontsize=9)
    axes.set_title("Accuracy at the end for its bytes", fontsize=10)


def _label(axes: Axes, cluster: Sequence[_Point], *, gap: float, shift: float) -> None:
    """The names of the points in one column to their right, none over another."""
    heights = spread([last for *_, last in cluster], gap=gap)
    column = max(size for _, size, _ in cluster) + shift
    for (name, size, last), height in zip(cluster, heights, strict=True):
        axes.annotate(
            name,
            (size, last),
            xytext=(column, height),
            fontsize=8,
            va="center",
            arrowprops={"arrowstyle": "-", "color": "#b0b0b0", "linewidth": 0.6},
        )


def _clusters(points: Sequence[_Point]) -> list[list[_Point]]:
    """The points from left to right, apart where there is room for names between them."""
    found: list[list[_Point]] = []
    for point in sorted(points, key=lambda point: point[1]):
        is_near = found and point[1] - found[-1][-1][1] < 0.3 * max(size for _, size, _ in points)
        if is_near:
            found[-1].append(point)
        else:
            found.append([point])
    return found


def _extent(values: Sequence[float]) -> float:
    return max(max(values) - min(values), 1.0)


def _grouped(
    shown: Sequence[MethodResult], columns: Sequence[Accuracies]
) -> list[tuple[list[str], Accuracies]]:
    """Methods whose numbers are the same to the percent as far as both go, together."""
    groups: list[tuple[list[str], Accuracies]] = []
    longest_first = sorted(zip(shown, columns, strict=True), key=lambda pair: np.isnan(pair[1]).sum())
    for method, values in longest_first:
        near = next((group for group in groups if _are_near(group[1], values)), None)
        if near is None:
            groups.append(([method.name], values))
        else:
            near[0].append(method.name)
    return groups


def _are_near(one: Accuracies, other: Accuracies) -> bool:
    known = np.isfinite(one) & np.isfinite(other)
    return bool(known.any() and np.allclose(one[known], other[known], rtol=0.01))


def _spokesman(members: Sequence[str]) -> str:
    """The member of a group that has a style of its own, the most prominent first."""
    return next((name for name in METHOD_STYLES if name in members), members[0])


def fidelity_drift(reading: Reading) -> Figure | None:
    """A row a method: how far each task's expert is from its original delta, revision by revision."""
    found: Mapping[str, Sequence[Mapping[str, Any]]] = reading.findings("fidelity")
    if not found:
        return None
    figure, grid = panels(len(found) * len(_FIDELITY), columns=len(_FIDELITY), width=4.2, height=3.3)
    for row, (method, revisions) in enumerate(found.items()):
        for column, (measure, words) in enumerate(_FIDELITY.items()):
            axes = grid[row * len(_FIDELITY) + column]
            for number, task in enumerate(reading.tasks):
                points = [(at, each[task][measure]) for at, each in enumerate(revisions, 1) if task in each]
                if points:
                    axes.plot(*zip(*points, strict=True), **task_style(number).of_line())
            axes.set_ylim(bottom=0)
            axes.set_title(f"{method}: {words}", fontsize=9)
            axes.set_xticks(range(1, len(reading.tasks) + 1))
            axes.set_xlabel("tasks learned", fontsize=8)
            tidy(axes, grid="y")
    handles = [grid[0].plot([], [], **task_style(at).of_line())[0] for at in range(len(reading.tasks))]
    figure.legend(
        handles,
        numbered(reading.tasks),
        loc="outside right upper",
        frameon=False,
        fontsize=8,
        title="expert of task",
    )
    figure.suptitle(
        f"How experts drift from what was fine-tuned, as later tasks are folded in\n{reading.title}",
        fontsize=11,
    )
    return figure
