"""One look for all figures: a method has one colour, line and marker, told apart without colour too."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette, which people who do not see red or green tell apart as well; grey for the rest.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000",
    "#e69f00",
    "#56b4e9",
    "#009e73",
    "#f0e442",
    "#0072b2",
    "#d55e00",
    "#cc79a7",
)
GREY, FAINT = "#7a7a7a", "#d9d9d9"
DPI = 130


@dataclass(frozen=True)
class LineStyle:
    """How a series is drawn."""

    colour: str
    marker: str
    dashes: str = "-"
    width: float = 1.6

    def of_line(self) -> dict[str, Any]:
        """Arguments of Axes.plot."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "linestyle": self.dashes,
            "linewidth": self.width,
            "markersize": 4.5,
        }


METHOD_STYLES = {
    "condu": LineStyle(GREEN, "o", width=2.6),
    "condu-lora": LineStyle(BLUE, "s", width=2.2),
    "individual": LineStyle(BLACK, "^", "--"),
    "zero-shot": LineStyle(GREY, "", ":"),
    "sequential": LineStyle(VERMILION, "v"),
    "emr": LineStyle(PURPLE, "D"),
    "wise-ft": LineStyle(ORANGE, "P"),
    "lwf": LineStyle(SKY, "X"),
}
"""The methods that figures with many lines name; all others are drawn faint there."""

OTHERS = LineStyle(FAINT, "", width=1.1)

_TASK_COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK, "#a6761d", GREY, "#5d3a9b", "#b8b000")
_TASK_MARKERS = "osD^vPX<>hdp"


def task_style(number: int) -> LineStyle:
    """The look of the task at that place; colour and marker come round at different times."""
    colour = _TASK_COLOURS[number % len(_TASK_COLOURS)]
    return LineStyle(colour, _TASK_MARKERS[number % len(_TASK_MARKERS)])


def plain(name: str, longest: int = 20) -> str:
    """A name as a figure shows it: short, and with nothing in it that would be read as a formula."""
    short = name if len(name) <= longest else f"{name[: longest - 1].rstrip()}…"
    return short.replace("$", r"\$")


def panels(
    count: int, *, width: float, height: float, columns: int = 4, margins: tuple[float, float] = (0.8, 0.9)
) -> tuple[Figure, list[Axes]]:
    """A figure of that many panels, filled row by row, with rows as even as they can be.

    Args:
        count: Of panels.
        width: Of one panel, in inches.
        height: Of one panel, in inches.
        columns: At most.
        margins: What the figure is wider and higher than its panels, for titles and labels.
    """
    rows = -(-count // columns)
    columns = -(-count // rows)
    size = (width * columns + margins[0], height * rows + margins[1])
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for spare in grid[count:]:
        spare.set_visible(False)
    return figure, grid[:count]


def tidy(axes: Axes, *, grid: str = "both") -> None:
    """A light grid behind the data, and no frame where there is no axis."""
    axes.grid(visible=True, axis=grid, color="#e6e6e6", linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def numbered(tasks: Sequence[str]) -> list[str]:
    """The tasks with the number of the step that learns them, as axes count them."""
    return [f"{number} {plain(name)}" for number, name in enumerate(tasks, start=1)]


def label_inches(labels: Sequence[str]) -> float:
    """About what the longest label takes, at the size of tick labels."""
    return 0.2 + 0.075 * max((len(label) for label in labels), default=0)


def spread(heights: Sequence[float], *, gap: float) -> list[float]:
    """The heights in their order, moved apart where two are nearer than the gap; for labels beside points."""
    placed = sorted(range(len(heights)), key=lambda at: heights[at])
    found = list(heights)
    for _ in range(200):
        is_settled = True
        for below, above in pairwise(placed):
            missing = gap - (found[above] - found[below])
            if missing > 1e-9 * gap:
                found[below] -= missing / 2
                found[above] += missing / 2
                is_settled = False
        if is_settled:
            break
    return found


def save(figure: Figure, path: Path) -> Path:
    """`path`, now a PNG file whose bytes depend on the data alone."""
    figure.savefig(path, metadata={"Software": None})
    return path
