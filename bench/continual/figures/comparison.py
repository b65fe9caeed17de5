"""The three scores of every method side by side."""

import numpy as np
from matplotlib.figure import Figure

from bench.continual.figures.style import GREY, METHOD_STYLES, OTHERS, panels, tidy
from bench.continual.metrics import Scores
from bench.continual.reading import MethodResult, Reading

SCORES = ("transfer", "average", "last")
_WORDS = {
    "transfer": "Transfer: tasks not yet learned",
    "average": "Average: all tasks, all steps",
    "last": "Last: all tasks at the end",
}


def method_comparison(reading: Reading) -> Figure | None:
    """A panel a score, a bar a method, best Last on top; a diamond where all labels of the suite compete."""
    done = [(method, found) for method in reading.methods if (found := method.scores()) is not None]
    if not done:
        return None
    done.sort(key=lambda pair: pair[1].last)
    figure, grid = panels(3, columns=3, width=3.7, height=max(2.2, 0.34 * len(done) + 0.7))
    places = np.arange(len(done))
    for axes, score in zip(grid, SCORES, strict=True):
        values = [_value(found, score) for _, found in done]
        bars = axes.barh(places, values, color=[_colour(method) for method, _ in done], height=0.72)
        axes.bar_label(bars, [_text(value) for value in values], padding=3, fontsize=8)
        union = [_union(method, score) for method, _ in done]
        axes.plot(
            union,
            places,
            "D",
            color="white",
            markeredgecolor="black",
            markersize=4.5,
            label="the same among all labels of the suite",
        )
        axes.set_xlim(0, 1.14 * max([*values, 1.0]))
        axes.set_yticks(places, [method.name for method, _ in done] if score == SCORES[0] else [])
        axes.tick_params(axis="y", length=0)
        axes.set_title(_WORDS[score], fontsize=10)
        axes.set_xlabel("percent", fontsize=9)
        axes.set_ylim(-0.6, len(done) - 0.4)
        tidy(axes, grid="x")
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside lower center", frameon=False, fontsize=9)
    figure.suptitle(
        f"Methods compared, best at the end on top (bars: among the task's own labels)\n{reading.title}",
        fontsize=11,
    )
    return figure


def _colour(method: MethodResult) -> str:
    style = METHOD_STYLES.get(method.name, OTHERS)
    return "#b5b5b5" if style is OTHERS else GREY if style.colour == "#000000" else style.colour


def _value(found: Scores, score: str) -> float:
    value = getattr(found, score)
    return 0.0 if value is None else float(value)


def _text(value: float) -> str:
    return f"{value:.1f}" if value else "-"


def _union(method: MethodResult, score: str) -> float:
    found = method.scores("union")
    return float("nan") if found is None else _value(found, score)
