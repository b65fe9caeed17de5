"""Progress on stderr: a moving bar on a terminal, a line now and then anywhere else."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from cli.output import Output
from cli.units import as_bytes, as_duration

LINE_EVERY_S = 10.0  # without a terminal: seldom enough for a log, often enough to see that it lives


class Gauge:
    """Done of total, with words beside it; the clock says how long the rest takes when nobody else does."""

    def __init__(
        self, console: Console, title: str, columns: list[ProgressColumn], text: Callable[[float], str]
    ) -> None:
        self._console = console
        self._title = title
        self._text = text
        self._started = self._said = time.monotonic()
        self._bar = Progress(*columns, console=console, transient=True) if console.is_terminal else None
        self._row = self._bar.add_task(title, total=None, words="") if self._bar else None

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def update(
        self, done: float, total: float | None, *, words: str = "", eta_s: float | None = None
    ) -> None:
        """Show that `done` of `total` is behind us."""
        if self._bar and self._row is not None:
            self._bar.update(self._row, completed=done, total=total, words=words)
        elif time.monotonic() - self._said >= LINE_EVERY_S:
            self._said = time.monotonic()
            self._console.print(
                self._line(done, total, words=words, eta_s=eta_s), markup=False, soft_wrap=True
            )

    def _line(self, done: float, total: float | None, *, words: str, eta_s: float | None) -> str:
        parts = [f"{self._title}: {self._text(done)}" + (f" of {self._text(total)}" if total else ""), words]
        left_s = eta_s if eta_s is not None else self._time_left_s(done, total)
        return ", ".join(
            part for part in [*parts, f"{as_duration(left_s)} left" if left_s is not None else ""] if part
        )

    def _time_left_s(self, done: float, total: float | None) -> float | None:
        return (time.monotonic() - self._started) * (total - done) / done if done and total else None


@contextmanager
def bytes_gauge(output: Output, title: str) -> Iterator[Callable[[int, int], None]]:
    """What an upload, a download or a check calls with the bytes done and the bytes in all."""
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    ]
    with Gauge(output.stderr, title, columns, lambda size_bytes: as_bytes(int(size_bytes))) as gauge:
        yield lambda done_bytes, total_bytes: gauge.update(
            done_bytes, total_bytes if total_bytes > 0 else None
        )


@contextmanager
def count_gauge(output: Output, title: str) -> Iterator[Callable[[int, int], None]]:
    """The same for things that are counted."""
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    ]
    with Gauge(output.stderr, title, columns, lambda number: f"{number:.0f}") as gauge:
        yield gauge.update


@contextmanager
def work_gauge(output: Output, title: str) -> Iterator[Callable[[int, int, str], None]]:
    """The same for work of unlike kinds: its share of the whole, and what is being done now."""
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[words]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    ]
    with Gauge(output.stderr, title, columns, lambda number: f"{number:.0f}") as gauge:
        yield lambda done, total, words: gauge.update(
            100.0 * done / total if total else 0.0, 100.0 if total else None, words=words
        )


@contextmanager
def speed_gauge(output: Output, title: str) -> Iterator[Callable[[int, int, float], None]]:
    """What is called with the images done, those in all, and images a second, which tell the time left."""
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[words]}"),
    ]
    with Gauge(output.stderr, title, columns, lambda number: f"{number:.0f}") as gauge:

        def on_progress(done: int, total: int, images_per_s: float) -> None:
            left_s = (total - done) / images_per_s if images_per_s else None
            progress = {"images_per_s": images_per_s, "eta_s": left_s}
            words = job_words(progress, with_eta=output.stderr.is_terminal)
            gauge.update(done, total, words=words, eta_s=left_s)

        yield on_progress


@contextmanager
def job_gauge(output: Output, title: str) -> Iterator[Callable[[dict[str, Any]], None]]:
    """What is called with a job's progress: step, loss, images a second, its own estimate of the rest."""
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[words]}"),
    ]
    with Gauge(output.stderr, title, columns, lambda number: f"{number:.0f}") as gauge:
        yield lambda progress: gauge.update(
            progress.get("step") or 0,
            progress.get("steps"),
            words=job_words(progress, with_eta=output.stderr.is_terminal),
            eta_s=progress.get("eta_s"),
        )


def job_words(progress: dict[str, Any], *, with_eta: bool) -> str:
    """What is worth reading of a job's progress, in one line."""
    parts = [str(progress.get("phase") or "")]
    if progress.get("loss") is not None:
        parts.append(f"loss {progress['loss']:.3f}")
    if progress.get("images_per_s"):
        parts.append(f"{progress['images_per_s']:.0f} images/s")
    if with_eta and progress.get("eta_s") is not None:
        parts.append(f"{as_duration(progress['eta_s'])} left")
    return ", ".join(part for part in parts if part)
