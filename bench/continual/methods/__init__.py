"""The methods by the names that papers give them."""

from collections.abc import Sequence

from bench.continual.methods.condu import (
    Condu,
    ConduNoAggregation,
    ConduNoRescale,
    ConduTensorRescalers,
)
from bench.continual.methods.contract import Method
from bench.continual.methods.experts import Emr, Individual
from bench.continual.methods.one_model import (
    Average,
    Lwf,
    Sequential,
    TaskArithmetic,
    Ties,
    WiseFt,
    ZeroShot,
    Zscl,
)
from bench.continual.stage import Stage
from bench.errors import BenchError
from bench.suites import Tuning

METHODS: dict[str, type[Method]] = {
    "zero-shot": ZeroShot,
    "individual": Individual,
    "sequential": Sequential,
    "wise-ft": WiseFt,
    "lwf": Lwf,
    "zscl": Zscl,
    "average": Average,
    "task-arithmetic": TaskArithmetic,
    "ties": Ties,
    "emr": Emr,
    "condu": Condu,
    "condu-lora": Condu,
    "condu-no-rescale": ConduNoRescale,
    "condu-no-aggregation": ConduNoAggregation,
    "condu-tensor-rescalers": ConduTensorRescalers,
    "individual-lora": Individual,
}
NEEDS_REFERENCE = frozenset({"zscl"})


def chosen_methods(names: Sequence[str], *, has_reference: bool) -> tuple[str, ...]:
    """The methods to run; "all" stands for every one that can run.

    Raises:
        BenchError: A name is unknown.
    """
    for name in names:
        if name != "all" and name not in METHODS:
            raise BenchError(
                f"there is no method {name!r}", remedy=f"use all, or some of {', '.join(METHODS)}"
            )
    possible = [name for name in METHODS if has_reference or name not in NEEDS_REFERENCE]
    wanted = [each for name in names for each in (possible if name == "all" else [name])]
    return tuple(dict.fromkeys(wanted))


def make_method(name: str, stage: Stage) -> Method:
    """The method at its beginning."""
    return METHODS[name](stage, tuning_of(name, stage.plan.tuning))


def tuning_of(name: str, tuning: Tuning) -> Tuning:
    """LoRA for the methods named after it, else the run's own."""
    return "lora" if name.endswith("-lora") else tuning
