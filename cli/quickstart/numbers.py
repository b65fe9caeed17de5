"""Every number the quickstart prints, under the names that `--json` promises."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("condu", "torch", "open_clip_torch", "timm", "numpy", "safetensors", "dbos", "fastapi")


@dataclass
class Numbers:
    """Filled in as the story goes on; accuracies in percent, top-1, on held-out images."""

    zero_shot: dict[str, float] = field(default_factory=dict)
    accuracy: list[dict[str, float]] = field(
        default_factory=list
    )  # after each step: task -> its expert's accuracy
    individual: dict[str, float | None] = field(default_factory=dict)
    training: dict[str, dict[str, Any]] = field(default_factory=dict)
    fidelity: dict[str, dict[str, Any]] = field(default_factory=dict)
    unnamed: dict[str, float] = field(default_factory=dict)
    unseen_labels: dict[str, Any] = field(default_factory=dict)
    imported: dict[str, Any] = field(default_factory=dict)
    export: dict[str, Any] = field(default_factory=dict)
    storage: dict[str, Any] = field(default_factory=dict)
    growth: list[dict[str, Any]] = field(default_factory=list)
    setting: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """All of it, with the machine it was measured on."""
        return {
            **vars(self),
            "machine": machine(),
            "versions": versions(),
            "finished_at": datetime.now(UTC).isoformat(),
        }


def storage_numbers(storage: Mapping[str, Any]) -> dict[str, Any]:
    """The storage of a model under the names of the contract; a size per task is the mean over the tasks."""
    triggers = storage["trigger_bytes"]
    return {**storage, "trigger_bytes_per_task": sum(triggers.values()) / len(triggers)}


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {
        "system": platform.platform(),
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
    }


def processor_name() -> str:
    """The processor's own name for itself, where the system tells it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def versions() -> dict[str, str]:
    """The packages whose versions can move a number."""
    return {package: version(package) for package in PACKAGES}
