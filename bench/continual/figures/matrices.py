"""What is a matrix: accuracies by step and task, overlap of masks, routing."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from bench.continual.figures.style import FAINT, ORANGE, label_inches, numbered, panels, plain
from bench.continual.reading import Reading

_CELL_INCHES = 0.4


def accuracy_heat_maps(reading: Reading) -> Figure | None:
    """A panel a method: a row a step, a column a task; the step that learned a task is framed."""
    shown = [method for method in reading.methods if method.num_steps > 0]
    if not shown:
        return None
    names, size = numbered(reading.tasks), len(reading.tasks)
    side = max(2.2, _CELL_INCHES * size)
    margins = (label_inches(names) + 1.2, 0.8)
    figure, grid = panels(len(shown), width=side + 0.2, height=side + 0.7, margins=margins)
    for axes, method in zip(grid, shown, strict=True):
        image = _cells(axes, method.matrices["own"], text="{:.0f}", highest=100.0)
        for task in range(size):
            axes.add_patch(
                Rectangle((task - 0.5, task - 0.5), 1, 1, fill=False, edgecolor=ORANGE, linewidth=1.8)
            )
        found = method.scores()
        said = "" if found is None else f", Last {found.last:.1f}"
        axes.set_title(f"{method.name}{said}", fontsize=10)
        is_first = axes.get_subplotspec().is_first_col()  # type: ignore[union-attr]
        _name_sides(axes, names if is_first else None, [str(at) for at in range(1, size + 1)], rotation=0)
        axes.set_xlabel("accuracy on task", fontsize=8)
        if is_first:
            axes.set_ylabel("after learning", fontsize=9)
    bar = figure.colorbar(image, ax=grid, shrink=0.5, aspect=40, location="right")
    bar.set_label("top-1 accuracy, percent", fontsize=9)
    figure.suptitle(
        f"Accuracy on every task (columns) after every step (rows); framed: the step that learns the task\n"
        f"{reading.title}",
        fontsize=11,
    )
    return figure


def mask_overlaps(reading: Reading) -> Figure | None:
    """A panel a method that has masks: how many set bits two tasks share, of those that either has."""
    found = {name: each for name, each in reading.findings("overlap").items() if each.get("tasks")}
    if not found:
        return None
    size = max(len(each["tasks"]) for each in found.values())
    side = max(3.0, 0.46 * size)
    margin = label_inches([plain(task) for task in reading.tasks])
    figure, grid = panels(
        len(found), columns=3, width=side + margin, height=side + margin, margins=(0.4, 0.6)
    )
    for axes, (name, each) in zip(grid, found.items(), strict=True):
        jaccard = np.array(each["jaccard"], dtype=np.float64)
        shared = jaccard[~np.eye(len(jaccard), dtype=bool)]
        masked = np.where(np.eye(len(jaccard), dtype=bool), np.nan, jaccard)
        _cells(axes, masked, text="{:.2f}", highest=1.0)
        names = [plain(task) for task in each["tasks"]]
        _name_sides(axes, names, names)
        said = f": pairs share {shared.min():.0%} to {shared.max():.0%}" if shared.size else ""
        axes.set_title(f"{name}{said}", fontsize=10)
    figure.suptitle(
        f"Overlap of masks: bits set in both tasks / bits set in either\n{reading.title}", fontsize=11
    )
    return figure


def routing_confusion(reading: Reading) -> Figure | None:
    """Whom the images of each task are routed to: the most similar task, and the mean weight of everyone."""
    found: dict[str, Any] = next(iter(reading.findings("routing").values()), {})
    if not found:
        return None
    rows, columns = [plain(name) for name in found["rows"]], [plain(name) for name in found["columns"]]
    first, weight = np.array(found["chosen_first"]), np.array(found["weight"])
    side = max(3.4, 0.46 * len(columns))
    margin = label_inches(columns)
    figure, (left, right) = panels(2, width=side + 0.2, height=side + margin, margins=(margin + 0.5, 0.5))
    _cells(left, 100.0 * first, text="{:.0f}", highest=100.0)
    _cells(right, 100.0 * weight, text="{:.0f}", highest=100.0)
    own = [first[at][columns.index(name)] for at, name in enumerate(rows) if name in columns]
    left.set_title(
        f"most similar task, percent of images\n(its own: {np.mean(own):.0%}, mean over tasks)", fontsize=10
    )
    right.set_title("mean weight in the answer, percent", fontsize=10)
    _name_sides(left, rows, columns)
    _name_sides(right, None, columns)
    left.set_ylabel("images of", fontsize=9)
    figure.suptitle(f"Whom held-out images are routed to when no task is named\n{reading.title}", fontsize=11)
    return figure


def _cells(axes: Axes, values: ArrayLike, *, text: str, highest: float) -> AxesImage:
    """The matrix in shades of one hue, each cell with its number; cells without one are hatched."""
    matrix: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    axes.set_facecolor("#f7f7f7")
    image = axes.imshow(matrix, cmap="Blues", vmin=0.0, vmax=highest, aspect="equal")
    size = 8 if max(matrix.shape) <= 9 else 7
    for (row, column), value in np.ndenumerate(matrix):
        if math.isnan(value):
            cell = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, hatch="////", edgecolor=FAINT)
            axes.add_patch(cell)
            continue
        colour = _ink(image.get_cmap(), value / highest)
        axes.text(column, row, text.format(value), ha="center", va="center", fontsize=size, color=colour)
    axes.spines[:].set_visible(False)
    return image


def _ink(shades: Colormap, share: float) -> str:
    red, green, blue, _ = shades(share)
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 else "#1a1a1a"


def _name_sides(
    axes: Axes, rows: Sequence[str] | None, columns: Sequence[str], *, rotation: float = 60
) -> None:
    axes.tick_params(length=0, labelsize=8)
    if rows is None:
        axes.set_yticks([])
    else:
        axes.set_yticks(range(len(rows)), rows)
    align = "right" if rotation else "center"
    axes.set_xticks(range(len(columns)), columns, rotation=rotation, ha=align, rotation_mode="anchor")
