"""Bodies about what tasks are to one another: which parameters they share, who answers for whose images."""

from pydantic import Field

from api.schemas.shapes import Answer, Name, with_example
from api.schemas.tasks import TASK_EXAMPLE, TaskAnswer


class OverlapWith(Answer):
    """A task's mask against that of another."""

    task: Name = Field(description="The other.")
    jaccard: float = Field(description="Parameters that both own, of those that either owns.")
    share: float = Field(description="Of the parameters this task owns, the share that the other owns too.")


class RouteShareAnswer(Answer):
    """One participant's part in the answers to a task's images."""

    task: Name | None = Field(description="Null for the base.")
    chosen_first: float = Field(
        description="Share of the images nearest to it; the base comes first where no expert takes part."
    )
    chosen: float = Field(description="Share of the images in whose answer it takes part.")
    weight: float = Field(description="Mean of its weights; those of all participants sum to 1.")


class TaskRouting(Answer):
    """Who answers for a task's held-out images where no task is named, with the options' defaults."""

    revision: int = Field(description="The revision in which this was measured, the newest that it was.")
    images: int
    shares: list[RouteShareAnswer] = Field(description="The base, then the tasks of that revision.")


ROUTING_EXAMPLE = {
    "revision": 2,
    "images": 40,
    "shares": [
        {"task": None, "chosen_first": 0.0, "chosen": 1.0, "weight": 0.3333},
        {"task": "pets", "chosen_first": 0.95, "chosen": 1.0, "weight": 0.3333},
        {"task": "digits", "chosen_first": 0.05, "chosen": 1.0, "weight": 0.3333},
    ],
}


class TaskPage(TaskAnswer):
    """A task as the head has it, and what it is to the other tasks."""

    model_config = with_example(
        **TASK_EXAMPLE,
        overlap=[{"task": "digits", "jaccard": 0.58, "share": 0.71}],
        routing=ROUTING_EXAMPLE,
        unrouted=None,
    )

    overlap: list[OverlapWith] = Field(description="Every other task of the head.")
    routing: TaskRouting | None
    unrouted: str | None = Field(description="Why `routing` is null.")


class OverlapAnswer(Answer):
    """The masks of a revision's tasks against each other; rows and columns are `tasks`."""

    model_config = with_example(
        model="animals",
        revision=2,
        tasks=["pets", "digits"],
        jaccard=[[1.0, 0.58], [0.58, 1.0]],
        share=[[1.0, 0.71], [0.75, 1.0]],
    )

    model: Name
    revision: int | None
    tasks: list[Name]
    jaccard: list[list[float]] = Field(description="Parameters that both own, of those that either owns.")
    share: list[list[float]] = Field(
        description="Of the parameters the row's task owns, the share that the column's owns too."
    )


class RoutingRow(Answer):
    """Where the held-out images of one task go; each list has an entry a column."""

    task: Name
    revision: int | None = Field(description="Where it was measured: tasks learned since have zeros.")
    images: int
    chosen_first: list[float] | None
    chosen: list[float] | None
    weight: list[float] | None
    unrouted: str | None = Field(description="Why the three are null.")


class RoutingAnswer(Answer):
    """The routing confusion matrix of a revision: a row a task, a column who may answer for its images."""

    model_config = with_example(
        model="animals",
        revision=2,
        columns=[None, "pets", "digits"],
        rows=[
            {
                "task": "pets",
                "revision": 2,
                "images": 40,
                "chosen_first": [0.0, 0.95, 0.05],
                "chosen": [1.0, 1.0, 1.0],
                "weight": [0.3333, 0.3333, 0.3333],
                "unrouted": None,
            },
            {
                "task": "digits",
                "revision": None,
                "images": 0,
                "chosen_first": None,
                "chosen": None,
                "weight": None,
                "unrouted": "no images of it were held out, so there is nothing to measure on",
            },
        ],
    )

    model: Name
    revision: int | None
    columns: list[Name | None] = Field(description="Null, which is the base; then the revision's tasks.")
    rows: list[RoutingRow]
