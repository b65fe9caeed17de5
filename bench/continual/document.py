"""The results of a run, in one file that is rewritten after every row: what is finished is never lost."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.continual.evaluating import Cell
from bench.continual.metrics import Scores, scores
from bench.errors import BenchError

FORMAT = "condu-continual-1"


class Results:
    """The document of a run; begun anew, or taken up where the file has the same run.

    Args:
        path: The JSON file.
        identity: `Plan.identity()` and what else the numbers depend on.

    Raises:
        BenchError: The file holds another run, or no run at all.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.document: dict[str, Any] = _found(path, identity) or {
            "format": FORMAT,
            **json.loads(json.dumps(identity)),
            "methods": {},
            "complete": False,
        }

    @property
    def num_tasks(self) -> int:
        """T, the number of tasks and of steps."""
        return len(self.document["tasks"])

    def has_row(self, method: str, step: int) -> bool:
        """Whether the method was asked after that step."""
        entry = self.document["methods"].get(method)
        return entry is not None and entry["matrix"][step] is not None

    def describe(self, **facts: Any) -> None:
        """Add facts about the run (machine, sizes); written with the next row."""
        self.document.update(facts)

    def add_row(
        self, method: str, step: int, row: Sequence[Cell], *, size_bytes: int, kept_bytes: int, seconds: float
    ) -> None:
        """Write down a row of both matrices; with the last one come the scores.

        Args:
            method: Its name.
            step: After which step, from 0.
            row: One cell a task.
            size_bytes: What the method must keep to answer for every task so far.
            kept_bytes: What it must keep to learn the next task as well.
            seconds: What the step took, its fine-tuning included.
        """
        entry = self.document["methods"].setdefault(method, self._empty())
        entry["matrix"][step] = [cell.own for cell in row]
        entry["union"]["matrix"][step] = [cell.union for cell in row]
        entry["bytes_by_step"][step], entry["kept_bytes_by_step"][step] = size_bytes, kept_bytes
        entry["seconds_by_step"][step] = round(seconds, 3)
        if None not in entry["matrix"]:
            entry.update(_summary(scores(entry["matrix"])))
            entry["union"].update(_summary(scores(entry["union"]["matrix"])))
            entry["bytes"], entry["kept_bytes"] = size_bytes, kept_bytes
            entry["seconds"] = round(sum(entry["seconds_by_step"]), 1)
        self.save()

    def add_findings(self, method: str, findings: Mapping[str, Any]) -> None:
        """Write down what else is known of a method: fidelity, overlap, routing."""
        for kind, found in findings.items():
            self.document.setdefault(kind, {})[method] = found
        self.save()

    def finish(self, methods: Sequence[str]) -> None:
        """Whether every row of every method that was asked for is there."""
        self.document["complete"] = all(
            self.has_row(method, step) for method in methods for step in range(self.num_tasks)
        )
        self.save()

    def save(self) -> None:
        """Put the document into the file, whole or not at all."""
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with part.open("w", encoding="utf-8") as file:  # as readable as any file of its user
            json.dump(self.document, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path)

    def _empty(self) -> dict[str, Any]:
        holes = [None] * self.num_tasks
        return {
            "matrix": list(holes),
            "bytes_by_step": list(holes),
            "kept_bytes_by_step": list(holes),
            "seconds_by_step": list(holes),
            "union": {"matrix": list(holes)},
        }


def _summary(found: Scores) -> dict[str, Any]:
    return {
        "transfer": found.transfer,
        "average": found.average,
        "last": found.last,
        "per_task": {
            "transfer": list(found.transfer_by_task),
            "average": list(found.average_by_task),
            "last": list(found.last_by_task),
        },
    }


def _found(path: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        is_ours = document.get("format") == FORMAT
    except (ValueError, AttributeError):
        is_ours = False
    if not is_ours:
        raise BenchError(
            f"{path} holds something else than results of this benchmark",
            remedy="name another file with --json",
        )
    wanted = json.loads(json.dumps(identity))
    for name, value in wanted.items():
        if document.get(name) != value:
            raise BenchError(
                f"{path} holds a run with {name} {document.get(name)!r}, and this one has {value!r}",
                remedy="name another file with --json, or repeat that run's own options to go on with it",
            )
    return document
