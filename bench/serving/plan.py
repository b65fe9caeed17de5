"""What `condu bench serving` measures, and how much of it."""

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True)
class ServingPlan:
    """Sizes of a run.

    Attributes:
        num_experts: Tasks that the model serves.
        num_classes: Of each task.
        num_photographs: Images that requests draw from.
        concurrency: Numbers of callers, each of whom asks again as soon as it is answered.
        rounds: Turns of every participant at every concurrency.
        seconds: Of one turn that count.
        warm_up_s: Of one turn before them, which do not.
        mixed_requests: Of the run whose every answer is checked.
        mixed_concurrency: Callers in that run.
        publish_every: Mixed requests between two revisions that are published meanwhile.
        switches: Experts that the memory of one process is watched for; the first tenth is left to settle.
        overhead_repeats: Times that each way of asking one hot expert is timed.
        seed: Of weights, deltas, classes, crops and requests.
    """

    num_experts: int = 8
    num_classes: int = 12
    num_photographs: int = 32
    concurrency: tuple[int, ...] = (1, 8, 32)
    rounds: int = 3
    seconds: float = 3.0
    warm_up_s: float = 0.7
    mixed_requests: int = 10_000
    mixed_concurrency: int = 32
    publish_every: int = 1000
    switches: int = 1000
    overhead_repeats: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_experts < 2 or self.switches < 10:
            raise ValueError("at least 2 experts and 10 switches make a comparison")

    @classmethod
    def quick(cls) -> Self:
        """Everything once and small, to see that it works: such times mean nothing."""
        return replace(
            cls(),
            num_experts=4,
            num_classes=4,
            num_photographs=6,
            concurrency=(1, 4),
            rounds=1,
            seconds=0.4,
            warm_up_s=0.1,
            mixed_requests=60,
            mixed_concurrency=8,
            publish_every=20,
            switches=40,
            overhead_repeats=5,
        )
