"""What people read of a run: its CSV files, its tables in the papers' layout, its figures."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.continual.figures import CAPTIONS, draw_figures
from bench.continual.metrics import Scores
from bench.continual.reading import LABEL_SETS, Reading, read_results
from bench.tables import machine_line, size_text

SCORES = ("transfer", "average", "last")
UNKNOWN = "-"


def write_report(
    document: Mapping[str, Any], features: Path | None, folder: Path, *, stem: str
) -> list[Path]:
    """The files written into the folder: `STEM.csv`, `STEM.scores.csv`, `STEM.md` and `STEM.*.png`.

    A document of a run that is not finished gives the same files with what is there.

    Args:
        document: As `condu bench continual --json` writes it.
        features: The features beside it, for the t-SNE figure; without them that figure is left out.
        folder: Made where it does not exist.
        stem: Of all names.

    Raises:
        BenchError: The document or the features are not what a run writes.
    """
    reading = read_results(document)
    folder.mkdir(parents=True, exist_ok=True)
    accuracies = _write_csv(
        folder / f"{stem}.csv", ("method", "label_set", "step", "task", "accuracy"), _accuracy_rows(reading)
    )
    scores = _write_csv(
        folder / f"{stem}.scores.csv", ("method", "label_set", "task", *SCORES), _score_rows(reading)
    )
    figures = draw_figures(reading, features, folder, stem=stem)
    page = folder / f"{stem}.md"
    page.write_text("\n".join(_page(reading, figures)) + "\n", encoding="utf-8")
    return [accuracies, scores, page, *figures.values()]


def _write_csv(path: Path, headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(headings)
        writer.writerows(rows)
    return path


def _accuracy_rows(reading: Reading) -> Iterable[Sequence[Any]]:
    """One row an accuracy that was measured; steps count from 1, and step j learns the j-th task."""
    for method in reading.methods:
        for label_set in LABEL_SETS:
            for step, row in enumerate(method.matrices[label_set].tolist(), start=1):
                for task, value in zip(reading.tasks, row, strict=True):
                    if not math.isnan(value):
                        yield method.name, label_set, step, task, f"{value:.4f}"


def _score_rows(reading: Reading) -> Iterable[Sequence[Any]]:
    """One row a task and one for the mean, of every method that has come to its end."""
    for method in reading.methods:
        for label_set in LABEL_SETS:
            found = method.scores(label_set)
            if found is None:
                continue
            for number, task in enumerate(reading.tasks):
                values = (_by_task(found, score)[number] for score in SCORES)
                yield method.name, label_set, task, *(_number(value, ".4f", "") for value in values)
            yield method.name, label_set, "mean", *(_number(getattr(found, s), ".4f", "") for s in SCORES)


def _page(reading: Reading, figures: Mapping[str, Path]) -> list[str]:
    document = reading.document
    lines = [f"# {_cell(reading.title)}", ""]
    if document.get("machine"):
        lines += [f"Measured on {machine_line(document)}.", ""]
    lines += ["## Scores", "", *_summary(reading), *_unfinished(reading)]
    union = document.get("num_labels_of_union")
    among = {"own": "among the task's own labels", "union": f"among all {union or ''} labels of the suite"}
    for label_set in LABEL_SETS:
        for score in SCORES:
            rows = _block(reading, score, label_set)
            if rows:
                lines += [f"## {score.capitalize()}, {' '.join(among[label_set].split())}", "", *rows, ""]
    if figures:
        lines += ["## Figures", ""]
        for name, path in figures.items():
            lines += [f"![{CAPTIONS[name]}]({path.name})", ""]
    return lines[:-1]


def _summary(reading: Reading) -> list[str]:
    headings = (
        "method",
        *(score.capitalize() for score in SCORES),
        *(f"{score.capitalize()}, all labels" for score in SCORES),
        "bytes to answer",
        "bytes to go on",
        "time",
    )
    rows = []
    for method in reading.methods:
        own, union = method.scores(), method.scores("union")
        values = [
            _number(None if found is None else getattr(found, score), ".1f")
            for found in (own, union)
            for score in SCORES
        ]
        sizes = [_size(method.bytes_by_step[-1]), _size(method.kept_bytes_by_step[-1])]
        rows.append((method.name, *values, *sizes, _duration(method.seconds)))
    return [*_table(headings, rows), ""]


def _unfinished(reading: Reading) -> list[str]:
    """A line on each method of which steps are missing."""
    num_tasks = len(reading.tasks)
    left = [method for method in reading.methods if method.num_steps < num_tasks]
    if not left:
        return []
    told = ", ".join(f"{method.name} ({method.num_steps} of {num_tasks} steps)" for method in left)
    return [f"Not finished, and so without scores: {told}.", ""]


def _block(reading: Reading, score: str, label_set: str) -> list[str]:
    """A row a method, a column a task, the mean last; as the papers print it."""
    rows = []
    for method in reading.methods:
        found = method.scores(label_set)
        if found is not None:
            values = (*_by_task(found, score), getattr(found, score))
            rows.append((method.name, *(_number(value, ".1f") for value in values)))
    return _table(("method", *reading.tasks, "mean"), rows) if rows else []


def _by_task(found: Scores, score: str) -> Sequence[float | None]:
    values: Sequence[float | None] = getattr(found, f"{score}_by_task")
    return values


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ("---", *("---:" for _ in headings[1:]))
    return ["| " + " | ".join(map(_cell, row)) + " |" for row in (headings, rule, *rows)]


def _cell(text: str) -> str:
    """The text where a bar would end a cell and a line break the row."""
    return " ".join(text.replace("|", r"\|").split())


def _number(value: float | None, form: str, unknown: str = UNKNOWN) -> str:
    return unknown if value is None else format(value, form)


def _size(size_bytes: float) -> str:
    return UNKNOWN if math.isnan(size_bytes) else size_text(size_bytes)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return UNKNOWN
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
