"""What is promised of the service, and whether a run kept it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MEMORY_GROWTH = 0.01
HALF_CACHE_RATIO = 0.7
HOT_OVERHEAD_MS = 1.0
OVERHEAD_RATIO = 0.05
LEAST_MIXED_REQUESTS = 10_000


@dataclass(frozen=True)
class Target:
    """One promise.

    Attributes:
        says: In words.
        found: What was measured, in words.
        is_met: Whether it holds.
    """

    says: str
    found: str
    is_met: bool


def targets(measured: Mapping[str, Any]) -> list[Target]:
    """The promises of one run, from its numbers under `serving`."""
    found = [
        Target(
            f"at least {name}'s images/s on one expert, {callers} callers", f"{ratio:.2f} times", ratio >= 1
        )
        for name, by_callers in measured["ratio_to"].items()
        for callers, ratio in by_callers.items()
    ]
    found += [
        Target(
            f"at least {HALF_CACHE_RATIO} of one expert's with half of all in memory, {callers} callers",
            f"{ratio:.2f}",
            ratio >= HALF_CACHE_RATIO,
        )
        for callers, ratio in measured["half_cache_mixed_to_one_expert"].items()
    ]
    wrong, asked, growth = (
        measured["wrong_answers"],
        measured["mixed_requests"],
        measured["rss_growth_100_to_1000"],
    )
    return [
        *found,
        Target(
            f"no wrong answer in {LEAST_MIXED_REQUESTS:,} mixed requests",
            f"{wrong} in {asked:,}",
            wrong == 0 and asked >= LEAST_MIXED_REQUESTS,
        ),
        Target(
            f"resident memory within {MEMORY_GROWTH:.0%} from switch 100 to 1,000",
            f"{growth:+.2%}",
            abs(growth) <= MEMORY_GROWTH,
        ),
        Target(
            f"less than {HOT_OVERHEAD_MS:g} ms over the model's own forward, hot expert, one image",
            f"{measured['hot_overhead_ms']:.2f} ms",
            measured["hot_overhead_ms"] < HOT_OVERHEAD_MS,
        ),
        Target(
            f"less than {OVERHEAD_RATIO:.0%} over the model's own forward at batch 8",
            f"{measured['overhead_ratio_batch_8']:+.1%}",
            measured["overhead_ratio_batch_8"] < OVERHEAD_RATIO,
        ),
    ]
