"""How far a benchmark is: steps done of steps planned, for a progress bar with an estimate of the rest."""

from collections.abc import Callable

OnProgress = Callable[[int, int], None]


class Steps:
    """Counts steps. What takes long plans several for itself, so that the estimate of the rest holds."""

    def __init__(self, on_progress: OnProgress | None = None) -> None:
        self._on_progress = on_progress
        self._done = self._planned = 0

    def plan(self, count: int) -> None:
        """Promise so many more steps."""
        self._planned += count

    def done(self, count: int = 1) -> None:
        """So many steps are behind us."""
        self._done += count
        if self._on_progress:
            self._on_progress(self._done, max(self._planned, self._done))
