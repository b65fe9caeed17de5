"""Suites: the tasks that a continual learner is measured on, in their orders (docs/suites.md)."""

from pathlib import Path

from bench.errors import BenchError
from bench.suites.contract import OnProgress, Suite, SuiteTask, Tuning, order_of
from bench.suites.mini import MiniSuite

__all__ = ["OnProgress", "Suite", "SuiteTask", "Tuning", "find_suite", "order_of"]


def find_suite(name: str, *, data: Path | None) -> Suite:
    """The suite of that name.

    Args:
        name: `mini`.
        data: The folder with the data sets, for a suite whose images nobody may fetch for the user.

    Raises:
        BenchError: There is no such suite.
    """
    del data
    if name == MiniSuite.name:
        return MiniSuite()
    raise BenchError(f"there is no suite {name!r}", remedy=f"name one of: {MiniSuite.name}")
