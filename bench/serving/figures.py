"""The figures of a run, drawn from its document alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.continual.figures.style import (
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    LineStyle,
    panels,
    save,
    tidy,
)

STYLES = {
    "condu": LineStyle(GREEN, "o", width=2.4),
    "condu, half the experts fit": LineStyle(SKY, "s"),
    "open-clip": LineStyle(ORANGE, "^", "--"),
    "litserve": LineStyle(VERMILION, "v", "--"),
    "ray": LineStyle(PURPLE, "D", "--"),
}
TITLES = {
    "one_expert": "One expert",
    "eight_mixed": "Experts in turn",
    "aggregation": "No task named",
}


def draw_serving(document: Mapping[str, Any], folder: Path, *, stem: str) -> list[Path]:
    """`STEM.latency.png`, `STEM.throughput.png` and `STEM.memory.png` in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    measured = document["serving"]
    figures = {"latency": _latency, "throughput": _throughput, "memory": _memory}
    return [save(draw(measured), folder / f"{stem}.{name}.png") for name, draw in figures.items()]


def _latency(measured: Mapping[str, Any]) -> Figure:
    figure, found = panels(len(TITLES), width=3.9, height=3.4)
    for axes, (scenario, title) in zip(found, TITLES.items(), strict=True):
        for who, by_callers in measured["scenarios"][scenario].items():
            callers = [int(number) for number in by_callers]
            middle = [row["p50_ms"] for row in by_callers.values()]
            slowest = [row["p99_ms"] for row in by_callers.values()]
            axes.plot(callers, middle, label=who, **STYLES[who].of_line())
            axes.fill_between(callers, middle, slowest, color=STYLES[who].colour, alpha=0.12, linewidth=0)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(callers, [str(number) for number in callers])
        axes.set_xlabel("callers at once", fontsize=9)
        axes.set_title(title, fontsize=10)
        tidy(axes)
    found[0].set_ylabel("ms until the answer: median, shaded to p99", fontsize=9)
    found[1].legend(frameon=False, fontsize=8)
    return figure


def _throughput(measured: Mapping[str, Any]) -> Figure:
    figure, found = panels(len(TITLES), width=3.9, height=3.4)
    for axes, (scenario, title) in zip(found, TITLES.items(), strict=True):
        rows = measured["scenarios"][scenario]
        _bars(axes, rows)
        axes.set_title(title, fontsize=10)
        tidy(axes)
    found[0].set_ylabel("images/s, median of the rounds", fontsize=9)
    found[1].legend(frameon=False, fontsize=8)
    return figure


def _bars(axes: Axes, rows: Mapping[str, Any]) -> None:
    width = 0.8 / len(rows)
    for place, (who, by_callers) in enumerate(rows.items()):
        at = [group + (place - (len(rows) - 1) / 2) * width for group in range(len(by_callers))]
        middle = [row["images_per_s"] for row in by_callers.values()]
        spread = [
            [
                value - min(row["rounds_per_s"])
                for value, row in zip(middle, by_callers.values(), strict=True)
            ],
            [
                max(row["rounds_per_s"]) - value
                for value, row in zip(middle, by_callers.values(), strict=True)
            ],
        ]
        axes.bar(at, middle, width, yerr=spread, color=STYLES[who].colour, label=who, ecolor=GREY, capsize=2)
    axes.set_xticks(range(len(by_callers)), [f"{number} callers" for number in by_callers], fontsize=8)


def _memory(measured: Mapping[str, Any]) -> Figure:
    figure, (axes,) = panels(1, width=5.4, height=3.3)
    rows, found = measured["switching"]["rows"], measured["switching"]
    at = [row["switches"] for row in rows]
    for name, words, colour in (("resident", "resident", GREEN), ("anonymous", "of it anonymous", ORANGE)):
        sizes = [row[f"{name}_bytes"] / 2**20 for row in rows]
        axes.plot(at, sizes, "o-", color=colour, label=words, markersize=4)
    axes.axvline(found["from_switch"], color=GREY, linestyle=":", label="growth is counted from here")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("switches of experts", fontsize=9)
    axes.set_ylabel("MiB", fontsize=9)
    axes.set_title(
        f"{found['experts']} experts in turn, {found['experts_kept']} fit: growth {found['growth']:+.2%}",
        fontsize=10,
    )
    axes.legend(frameon=False, fontsize=8)
    tidy(axes)
    return figure
