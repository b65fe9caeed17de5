"""Transfer, Average and Last: the three scores of the protocol, from the matrix of accuracies alone.

A[j, i] is the top-1 accuracy in percent on task i after step j; there are as many steps as tasks, and step j
is the one that learns task j. For each task i, as the benchmark's authors do (ZSCL, arXiv 2303.06628):

    Transfer_i = mean of A[j, i] over j < i       what the tasks before it did for a task not yet learned
    Average_i  = mean of A[j, i] over all j
    Last_i     = A[T, i]                          what is left at the end

Each score is the mean of its column means. Transfer has T - 1 of them, because nothing comes before the first
task; it is not the mean over the upper triangle, which would count the late tasks more often. Zero-shot CLIP
therefore has a Transfer (69.4 in order I) that differs from its Average and its Last (65.3).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from bench.errors import BenchError

Matrix = Sequence[Sequence[float | None] | None]


class MatrixError(BenchError):
    """A matrix of accuracies from which no score can be computed."""


@dataclass(frozen=True)
class Scores:
    """The three scores in percent, not rounded, and the column means that they are the means of.

    Attributes:
        transfer: None for a single task, which nothing comes before.
        transfer_by_task: None for the first task.
    """

    transfer: float | None
    average: float
    last: float
    transfer_by_task: tuple[float | None, ...]
    average_by_task: tuple[float, ...]
    last_by_task: tuple[float, ...]


def scores(matrix: Matrix) -> Scores:
    """Transfer, Average and Last of a whole matrix: a row a step, a column a task, in one order.

    Raises:
        MatrixError: The matrix is empty or not square, or an entry is missing or no percentage (named).
    """
    rows = _checked(matrix)
    columns = list(zip(*rows, strict=True))
    earlier = [fmean(column[:task]) for task, column in enumerate(columns) if task > 0]
    average_by_task = tuple(fmean(column) for column in columns)
    last_by_task = tuple(rows[-1])
    return Scores(
        transfer=fmean(earlier) if earlier else None,
        average=fmean(average_by_task),
        last=fmean(last_by_task),
        transfer_by_task=(None, *earlier),
        average_by_task=average_by_task,
        last_by_task=last_by_task,
    )


def _checked(matrix: Matrix) -> list[list[float]]:
    if not matrix:
        raise MatrixError("the matrix of accuracies has no rows", remedy="give a row for each step")
    rows = []
    for number, row in enumerate(matrix, start=1):
        if row is None:
            raise MatrixError(
                f"row {number} of {len(matrix)} is missing",
                remedy="finish the run: give its --json FILE again and it goes on",
            )
        if len(row) != len(matrix):
            raise MatrixError(
                f"row {number} has {len(row)} entries where the matrix has {len(matrix)} rows",
                remedy="give a row a step and a column a task, as many of the one as of the other",
            )
        rows.append([_percentage(value, f"row {number}, column {i}") for i, value in enumerate(row, start=1)])
    return rows


def _percentage(value: float | None, place: str) -> float:
    if value is None:
        raise MatrixError(
            f"the entry in {place} is missing",
            remedy="every task is measured after every step, learned or not",
        )
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MatrixError(f"the entry in {place} is {value!r}", remedy="give an accuracy in percent")
    if not math.isfinite(value) or not 0.0 <= value <= 100.0:
        raise MatrixError(f"the entry in {place} is {value}", remedy="an accuracy in percent lies in 0..100")
    return float(value)
