"""Peak memory of a fusion, measured from outside in a process of its own."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

SAMPLE_EVERY_S = 0.0005

GIVES_BACK = {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "65536"}
"""glibc gives back at once what is freed: what it would keep for later depends on the timing of threads, and
moved the peak by a tenth from run to run."""


def measure_fold(arguments: Mapping[str, Any]) -> dict[str, int]:
    """What one CheckpointStore.fold takes in a fresh process, in bytes.

    The process loads the base and folds a tiny model first, so that imports and compilers are paid for.
    Counted is anonymous memory (RssAnon), sampled every half millisecond: pages of the mapped checkpoint
    belong to the page cache and are given back at need. `high_water_bytes` counts them too.

    Args:
        arguments: What bench.memory_child reads: folder, base, parent, checkpoint, index.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "bench.memory_child", json.dumps(dict(arguments))],
        cwd=Path(__file__).resolve().parents[1],
        env=os.environ | GIVES_BACK,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n", "the measured process failed; its error is above"
        before = resident(child.pid)
        child.stdin.write("go\n")
        child.stdin.flush()
        peak = _peak_anonymous(child.pid, child.stdout)
        report = json.loads(child.stdout.readline())
        child.stdin.close()
    anonymous = peak - before["RssAnon"]
    return {
        "peak_anonymous_bytes": anonymous,
        "delta_bytes": report["delta_bytes"],
        "peak_extra_bytes": anonymous - report["delta_bytes"],
        "high_water_bytes": report["high_water_bytes"] - before["VmRSS"],
        "before_bytes": before["VmRSS"],
    }


def _peak_anonymous(pid: int, answers: IO[str]) -> int:
    """The largest RssAnon until the process answers."""
    peak = 0
    while not select.select([answers], [], [], SAMPLE_EVERY_S)[0]:
        peak = max(peak, resident(pid)["RssAnon"])
    return peak


def resident(pid: int | str = "self") -> dict[str, int]:
    """VmRSS, VmHWM, RssAnon and RssFile of a process, in bytes; Linux only."""
    wanted = {"VmRSS", "VmHWM", "RssAnon", "RssFile"}
    sizes = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in wanted:
            sizes[name] = int(value.split()[0]) * 1024
    return sizes
