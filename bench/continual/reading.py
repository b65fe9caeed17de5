"""A results document as the reports read it: NaN where a row is not there yet, scores where all are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.continual.metrics import MatrixError, Scores, scores
from bench.errors import BenchError

FORMAT = "condu-continual-1"
LABEL_SETS = ("own", "union")

Accuracies = NDArray[np.float64]


@dataclass(frozen=True)
class MethodResult:
    """What one method did, as far as it came.

    Attributes:
        matrices: Label set -> accuracies in percent, a row a step, a column a task; NaN where not measured.
        bytes_by_step: What it keeps to answer for the tasks so far; NaN where not measured.
        kept_bytes_by_step: What it keeps to learn the next task as well.
        seconds: Of all steps; None while some are missing.
    """

    name: str
    matrices: Mapping[str, Accuracies]
    bytes_by_step: Accuracies
    kept_bytes_by_step: Accuracies
    seconds: float | None

    @property
    def num_steps(self) -> int:
        """Steps that it was asked after."""
        return int(np.isfinite(self.matrices["own"]).all(axis=1).sum())

    def scores(self, label_set: str = "own") -> Scores | None:
        """Computed from the matrix, whatever else the document says; None while it has holes."""
        matrix = self.matrices[label_set]
        return None if np.isnan(matrix).any() else scores(matrix.tolist())


@dataclass(frozen=True)
class Reading:
    """The document, and its methods in the order they were run."""

    document: Mapping[str, Any]
    tasks: tuple[str, ...]
    methods: tuple[MethodResult, ...]

    @property
    def title(self) -> str:
        """Suite, order, setting, tuning and seed in one line."""
        said = self.document
        shots = f", {said['shots']} shots" if said.get("shots") else ""
        return (
            f"{said['suite']}, order {said['order']}, {said['setting']}{shots}, "
            f"{said['tuning']} fine-tuning, seed {said['seed']}"
        )

    def findings(self, kind: str) -> dict[str, Any]:
        """Method -> what was found of that kind (fidelity, overlap, routing), where something was."""
        return {name: found for name, found in self.document.get(kind, {}).items() if found}


def read_results(document: Mapping[str, Any]) -> Reading:
    """The document's typed view.

    Raises:
        BenchError: It is no results document, or a matrix in it has another shape than its tasks.
    """
    if document.get("format") != FORMAT:
        raise BenchError(
            f"a results document says format {FORMAT!r}, this one {document.get('format')!r}",
            remedy="give the file that `condu bench continual --json FILE` wrote",
        )
    tasks = tuple(document["tasks"])
    methods = tuple(_method(name, entry, len(tasks)) for name, entry in document["methods"].items())
    return Reading(document, tasks, methods)


def _method(name: str, entry: Mapping[str, Any], num_tasks: int) -> MethodResult:
    try:
        matrices = {
            "own": _matrix(entry["matrix"], num_tasks),
            "union": _matrix(entry.get("union", {}).get("matrix", [None] * num_tasks), num_tasks),
        }
        own_bytes = _column(entry.get("bytes_by_step"), num_tasks)
        kept_bytes = _column(entry.get("kept_bytes_by_step", entry.get("bytes_by_step")), num_tasks)
    except MatrixError as error:
        raise MatrixError(f"method {name!r}: {error.message}", remedy=error.remedy) from error
    return MethodResult(name, matrices, own_bytes, kept_bytes, entry.get("seconds"))


def _matrix(rows: Sequence[Sequence[float | None] | None], num_tasks: int) -> Accuracies:
    found = np.full((num_tasks, num_tasks), np.nan)
    if len(rows) != num_tasks:
        raise _wrong_shape(f"{len(rows)} rows", num_tasks)
    for step, row in enumerate(rows):
        if row is None:
            continue
        if len(row) != num_tasks:
            raise _wrong_shape(f"{len(row)} entries in row {step + 1}", num_tasks)
        found[step] = [np.nan if value is None else value for value in row]
    return found


def _column(values: Sequence[float | None] | None, num_tasks: int) -> Accuracies:
    if values is None:
        return np.full(num_tasks, np.nan)
    if len(values) != num_tasks:
        raise _wrong_shape(f"bytes of {len(values)} steps", num_tasks)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _wrong_shape(found: str, num_tasks: int) -> MatrixError:
    return MatrixError(
        f"there are {found} where the run has {num_tasks} tasks", remedy="run it again with a new --json FILE"
    )
