"""How far a run is, in pictures that went through an image tower; a step back counts as two more."""

from collections.abc import Callable

OnProgress = Callable[[int, int, str], None]
"""Called with (work done, work in all, what is being done)."""

BACKWARD = 3
"""Times the work of a forward pass that a training step costs."""


class Meter:
    """Counts work against what was planned; what turned out to be there already is taken off the plan."""

    def __init__(self, on_progress: OnProgress | None = None) -> None:
        self._on_progress = on_progress
        self._done = self._planned = 0
        self.words = ""

    def plan(self, work: int) -> None:
        """Promise so much more work, or less where `work` is negative."""
        self._planned += work

    def done(self, work: int) -> None:
        """So much work is behind us."""
        self._done += work
        if self._on_progress is not None:
            self._on_progress(self._done, max(self._planned, self._done), self.words)
