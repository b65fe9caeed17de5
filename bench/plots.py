"""The plots of docs/benchmarks.md, drawn from the documents alone."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bench.tables import count_text, size_text, time_text

OURS, PEER, FLOOR, OTHERS = "#0b6e4f", "#c8553d", "#8a8a8a", ("#08519c", "#6a51a3", "#b07d12")
_MARKED: dict[str, Any] = {"marker": "o", "markersize": 4, "linewidth": 1.8}


def draw_all(documents: Mapping[str, Mapping[str, Any]], folder: Path) -> list[str]:
    """Every plot of the documents at hand, as PNG files in the folder; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for name, (benchmark, draw) in _PLOTS.items():
        if benchmark in documents:
            figure = Figure(figsize=(6.4, 3.9), dpi=110, layout="constrained")
            axes = figure.subplots()
            draw(axes, documents[benchmark][benchmark])
            axes.grid(visible=True, which="major", color="#e4e4e4", linewidth=0.8)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False, fontsize=8)
            figure.savefig(folder / f"{name}.png")
            names.append(name)
    return names


def _fusion_by_tasks(axes: Axes, measured: Mapping[str, Any]) -> None:
    rows = list(measured["by_tasks"].values())
    tasks = [row["tasks"] for row in rows]
    _times(axes, tasks, rows, works=_FUSIONS)
    axes.plot(tasks, [row["floor_s"] for row in rows], "--", color=FLOOR, label=_FLOOR_LABEL)
    _log_log(axes, "tasks, the new one included", "time of one fusion", xs=tasks, y_text=time_text)
    axes.set_title(f"Fusing one more task, {count_text(measured['parameters'])} parameters", fontsize=10)


def _fusion_by_parameters(axes: Axes, measured: Mapping[str, Any]) -> None:
    rows = measured["by_parameters"]
    sizes = [row["parameters"] for row in rows]
    _times(axes, sizes, rows, works=_FUSIONS)
    axes.plot(sizes, [row["floor_s"] for row in rows], "--", color=FLOOR, label=_FLOOR_LABEL)
    _log_log(axes, "parameters", "time of one fusion", xs=sizes, y_text=time_text)
    axes.set_title(f"Fusing one more task, {rows[0]['tasks']} tasks", fontsize=10)


def _memory_by_tasks(axes: Axes, measured: Mapping[str, Any]) -> None:
    rows = measured["memory"]
    tasks = [int(count) for count in rows]
    model = measured["model_bytes"]
    extra = [row["peak_extra_bytes"] / model for row in rows.values()]
    axes.plot(tasks, extra, color=OURS, label="CheckpointStore.fold", **_MARKED)
    masks = [(count * 1.0 + count / 4) for count in tasks]
    axes.plot(
        tasks,
        masks,
        "--",
        color=PEER,
        label="every delta and bool mask at once (computed)",
    )
    axes.axhline(2, color=FLOOR, linestyle=":", label="the bound that is promised")
    _log_log(axes, "tasks, the new one included", "model sizes over base and delta", xs=tasks)
    axes.set_title(f"Peak memory of a fusion, {count_text(measured['parameters'])} parameters", fontsize=10)


def _memory_by_parameters(axes: Axes, measured: Mapping[str, Any]) -> None:
    rows = measured["memory_by_parameters"]
    sizes = [row["parameters"] for row in rows]
    axes.plot(
        sizes, [row["peak_extra_bytes"] for row in rows], color=OURS, label="CheckpointStore.fold", **_MARKED
    )
    axes.plot(sizes, [8 * size for size in sizes], ":", color=FLOOR, label="2 model sizes: what is promised")
    axes.plot(sizes, [4 * size for size in sizes], "--", color=FLOOR, label="1 model size")
    _log_log(axes, "parameters", "peak memory over base and delta", xs=sizes, y_text=size_text)
    axes.set_title(f"Peak memory of a fusion, {rows[0]['tasks']} tasks", fontsize=10)


def _many_tasks(axes: Axes, measured: Mapping[str, Any]) -> None:
    rows = measured["thousand_tasks"]["by_tasks"]
    tasks = [row["tasks"] for row in rows]
    axes.plot(tasks, [row["fold_s"] for row in rows], color=OURS, label="time, with files", **_MARKED)
    in_memory = [row["fold_in_memory_s"] for row in rows]
    axes.plot(tasks, in_memory, color=OTHERS[0], label="time, without files", **_MARKED)
    _log_log(axes, "tasks, the new one included", "time of one fusion", xs=tasks, y_text=time_text)
    right = axes.twinx()
    moved = [row["bytes_read"] + row["bytes_written"] for row in rows]
    right.plot(tasks, moved, "--", color=PEER, label="bytes read and written (right)")
    right.set_yscale("log")
    right.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=12))
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: size_text(value)))
    right.yaxis.set_minor_formatter(NullFormatter())
    right.spines[["top"]].set_visible(False)
    axes.plot([], [], "--", color=PEER, label="bytes read and written (right)")
    parameters = count_text(measured["thousand_tasks"]["parameters"])
    axes.set_title(f"One model of {parameters} parameters that goes on learning", fontsize=10)


def _rebuild_by_parameters(axes: Axes, measured: Mapping[str, Any]) -> None:
    rows = measured["by_parameters"]
    sizes = [row["parameters"] for row in rows]
    axes.plot(
        sizes, [row["rebuild_s"] for row in rows], color=OURS, label="rebuild from packed bits", **_MARKED
    )
    axes.plot(
        sizes, [row["add_s"] for row in rows], color=PEER, label="torch.add of the same size", **_MARKED
    )
    # Three floats an entry move, where a copy moves two.
    floor = [row["copy_s"] * 3 / 2 for row in rows]
    axes.plot(sizes, floor, "--", color=FLOOR, label="the same bytes at the speed of a copy")
    _log_log(axes, "parameters", "time, warm buffers", xs=sizes, y_text=time_text)
    axes.set_title("Rebuilding an expert", fontsize=10)


def _whole_ratio(axes: Axes, measured: Mapping[str, Any]) -> None:
    ratios = measured["whole_ratio"]
    colours = [OURS, *OTHERS]
    tasks = [int(count) for count in next(iter(ratios.values()))]
    for (dtype, row), colour in zip(ratios.items(), colours, strict=False):
        axes.plot(tasks, list(row.values()), color=colour, label=f"ours, {dtype} unified delta", **_MARKED)
    for peer, label, style in (
        ("torch_save", "bool masks with torch.save", "--"),
        ("numpy_packbits", "numpy packbits", ":"),
    ):
        row = measured["peers"][peer]["whole_ratio"]
        axes.plot(tasks, list(row.values()), style, color=PEER, label=label)
    axes.axhline(1, color=FLOOR, linestyle="-.", label="whole fp32 checkpoints")
    _log_log(axes, "tasks", "N checkpoints / whole store with its fp32 base", xs=tasks)
    axes.set_title(f"Whole store, {count_text(measured['parameters'])} parameters", fontsize=10)


_FUSIONS = {"textbook": ("textbook (torch, bool masks)", PEER), "fold": ("ours", OURS)}
_FLOOR_LABEL = "the bytes it must move, at the speed of a copy"


def _times(
    axes: Axes,
    xs: Sequence[int],
    rows: Sequence[Mapping[str, Any]],
    *,
    works: Mapping[str, tuple[str, str]],
) -> None:
    for name, (label, colour) in works.items():
        medians = [row["timings"][name]["median_s"] for row in rows]
        axes.plot(xs, medians, color=colour, label=label, **_MARKED)


def _log_log(
    axes: Axes,
    x_label: str,
    y_label: str,
    *,
    xs: Sequence[int],
    y_text: Callable[[float], str] = lambda value: f"{value:g}",
) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5), numticks=12))
    axes.set_xticks(list(xs), [count_text(x) for x in xs], fontsize=8)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: y_text(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(which="minor", length=2)
    axes.set_xlabel(x_label, fontsize=9)
    axes.set_ylabel(y_label, fontsize=9)


_PLOTS: dict[str, tuple[str, Callable[[Axes, Mapping[str, Any]], None]]] = {
    "rebuild_by_parameters": ("rebuild", _rebuild_by_parameters),
    "fusion_by_tasks": ("fusion", _fusion_by_tasks),
    "fusion_by_parameters": ("fusion", _fusion_by_parameters),
    "memory_by_tasks": ("fusion", _memory_by_tasks),
    "memory_by_parameters": ("fusion", _memory_by_parameters),
    "many_tasks": ("fusion", _many_tasks),
    "whole_ratio": ("storage", _whole_ratio),
}

BENCHMARK_OF = {name: benchmark for name, (benchmark, _) in _PLOTS.items()}
