"""Suites: the tasks that a continual learner is measured on, in their orders (docs/suites.md)."""

from pathlib import Path

from bench.errors import BenchError
from bench.suites.contract import OnProgress, Suite, SuiteTask, Tuning, order_of
from bench.suites.folder import FolderSuite
from bench.suites.mini import MiniSuite
from bench.suites.mtil import MtilSuite

__all__ = ["OnProgress", "Suite", "SuiteTask", "Tuning", "find_suite", "order_of"]


def find_suite(name: str, *, data_folder: Path | None) -> Suite:
    """The suite of that name.

    Args:
        name: `mini`, `mtil`, or a folder of tasks (a path: with a slash in it, or there from here).
        data_folder: The folder with the data sets of `mtil`.

    Raises:
        BenchError: There is no such suite, or `mtil` without a folder of data sets.
    """
    if name == MiniSuite.name:
        return MiniSuite()
    if name == MtilSuite.name:
        if data_folder is None:
            raise BenchError(
                "suite 'mtil' needs a folder of data sets",
                remedy="name it with --data FOLDER; docs/suites.md shows what is in it",
            )
        return MtilSuite(data_folder)
    folder = Path(name)
    if folder.is_dir():
        return FolderSuite(folder)
    raise BenchError(
        f"there is no suite {name!r}, and no folder of that name",
        remedy=f"name one of {MiniSuite.name}, {MtilSuite.name}, or a folder of tasks",
    )
