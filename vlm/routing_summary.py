"""Where the pictures of each task are routed: counts over many answers. Values in, values out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from vlm.answers import ExpertShare

BASE_COLUMN = "base"
"""What the base's column is called where columns have names; its key among the tasks is None."""


@dataclass(frozen=True)
class RouteShare:
    """One participant's part in the answers to some pictures.

    Attributes:
        task: None for the base.
        chosen_first: Share of the pictures that are nearest to it; the base comes first where no expert
            took part.
        chosen: Share of the pictures whose answer it took part in.
        weight: Mean of its weights, 0 where it took no part.
    """

    task: str | None
    chosen_first: float
    chosen: float
    weight: float


@dataclass(frozen=True)
class RoutedPictures:
    """Where the pictures of one task went: the base first, then every task that could be chosen, in order.

    Over a row, `chosen_first` and `weight` each sum to 1.
    """

    num_images: int
    shares: tuple[RouteShare, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values; `from_dict` is the inverse."""
        return {"num_images": self.num_images, "shares": [asdict(share) for share in self.shares]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `to_dict` gave."""
        return cls(values["num_images"], tuple(RouteShare(**share) for share in values["shares"]))


@dataclass(frozen=True)
class RoutingConfusion:
    """A row a true task, a column a participant; None in the row of a task that no picture was counted of.

    Attributes:
        rows: The tasks that the pictures are of.
        columns: BASE_COLUMN, then the tasks that could be chosen.
        num_images: Pictures of each row.
        chosen_first: As in `RouteShare`, and so are the other two.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    num_images: tuple[int, ...]
    chosen_first: tuple[tuple[float, ...] | None, ...]
    chosen: tuple[tuple[float, ...] | None, ...]
    weight: tuple[tuple[float, ...] | None, ...]


@dataclass
class _Counts:
    """What was counted of one true task's pictures, a place a column."""

    first: list[int]
    taken: list[int]
    weight: list[float]
    num_images: int = field(default=0)

    def shares(self, columns: Sequence[str | None]) -> RoutedPictures:
        num = self.num_images
        rows = zip(columns, self.first, self.taken, self.weight, strict=True)
        return RoutedPictures(
            num,
            tuple(
                RouteShare(task, first / num, taken / num, total / num) for task, first, taken, total in rows
            ),
        )


class RoutingSummary:
    """Adds up who took part in the answers to pictures whose task is known.

    Args:
        tasks: The tasks of the revision that answers, in their order.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        self._columns: tuple[str | None, ...] = (None, *tasks)
        self._place = {task: place for place, task in enumerate(self._columns)}
        self._counts: dict[str, _Counts] = {}

    def add(self, true_task: str, experts: Sequence[ExpertShare]) -> None:
        """Count one picture's answer; `true_task` need not be among the tasks, as one not learned yet is not.

        Raises:
            ValueError: Nobody took part, or a task that the revision does not have.
        """
        if not experts:
            raise ValueError(f"nobody answered this picture of {true_task!r}; leave rejected pictures out")
        strangers = [share.task for share in experts if share.task not in self._place]
        if strangers:
            raise ValueError(f"task {strangers[0]!r} answered, but is not one of {list(self._columns[1:])}")
        counts = self._counts.setdefault(true_task, self._nothing())
        counts.num_images += 1
        counts.first[self._place[_first_of(experts)]] += 1
        for share in experts:
            counts.taken[self._place[share.task]] += 1
            counts.weight[self._place[share.task]] += share.weight

    def add_all(self, true_task: str, answers: Iterable[Sequence[ExpertShare]]) -> None:
        """Count many pictures' answers."""
        for experts in answers:
            self.add(true_task, experts)

    def of(self, true_task: str) -> RoutedPictures | None:
        """Where that task's pictures went; None where none was counted."""
        counts = self._counts.get(true_task)
        return None if counts is None else counts.shares(self._columns)

    def confusion(self, rows: Sequence[str] | None = None) -> RoutingConfusion:
        """Everything counted, for the tasks given; else for those that were counted, in that order."""
        names = tuple(self._counts) if rows is None else tuple(rows)
        return confusion(
            {name: self.of(name) for name in names},
            columns=[task for task in self._columns if task is not None],
        )

    def _nothing(self) -> _Counts:
        num = len(self._columns)
        return _Counts([0] * num, [0] * num, [0.0] * num)


def confusion(rows: Mapping[str, RoutedPictures | None], *, columns: Sequence[str]) -> RoutingConfusion:
    """The rows as one matrix over the base and the tasks `columns`; what a row says of others is left out.

    Rows may have been counted at different times: of a task that was no choice then, the shares are 0.
    """
    keys: tuple[str | None, ...] = (None, *columns)

    def lined_up(name: str) -> list[RouteShare] | None:
        row = rows[name]
        if row is None:
            return None
        known = {share.task: share for share in row.shares}
        return [known.get(key, RouteShare(key, 0.0, 0.0, 0.0)) for key in keys]

    shares = [lined_up(name) for name in rows]
    return RoutingConfusion(
        rows=tuple(rows),
        columns=(BASE_COLUMN, *columns),
        num_images=tuple(0 if row is None else row.num_images for row in rows.values()),
        chosen_first=_matrix(shares, lambda share: share.chosen_first),
        chosen=_matrix(shares, lambda share: share.chosen),
        weight=_matrix(shares, lambda share: share.weight),
    )


def _matrix(
    rows: Iterable[Sequence[RouteShare] | None], entry: Callable[[RouteShare], float]
) -> tuple[tuple[float, ...] | None, ...]:
    return tuple(None if row is None else tuple(map(entry, row)) for row in rows)


def _first_of(experts: Sequence[ExpertShare]) -> str | None:
    """The nearest expert, of equals the one that stands first; the base where no expert took part."""
    tasks = [share for share in experts if share.task is not None]
    if not tasks:
        return None
    return max(tasks, key=lambda share: -1.0 if share.similarity is None else share.similarity).task
