"""Where and on what code a result was measured."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "condu",
    "numpy",
    "torch",
    "open_clip_torch",
    "numba",
    "safetensors",
    "zstandard",
    "zipnn",
    "deltatensors",
    "litserve",
    "ray",
)
_SOURCES = Path(__file__).resolve().parents[1]


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory, versions, commit and date; None where this machine does not tell."""
    import torch

    commit = _git("rev-parse", "HEAD")
    # What an earlier benchmark of the same run wrote is no change of the code.
    changes = _git("status", "--porcelain", "--", ":/", ":(top,exclude)docs/benchmarks*")
    return {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "ram_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "commit": commit,
        "dirty": None if changes is None else bool(changes),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load_average": os.getloadavg()[0],
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],  # noqa: S607 - the git that the reader uses
            cwd=_SOURCES,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _field(path: str, name: str) -> str | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), None)
