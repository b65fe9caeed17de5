"""What a run of the protocol is: everything its numbers depend on."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from bench.errors import BenchError
from bench.suites import Tuning
from store.manifest import RescalerNorm, UnifiedDtype
from vlm.errors import InvalidOptionsError
from vlm.prediction_options import PredictionOptions, Space
from vlm.routing import Weighting

Setting = Literal["mtil", "task-agnostic", "few-shot"]

FEW_SHOTS = 5
"""Images a class in the few-shot setting, as the papers have it."""
DEFAULT_RANK = 64


@dataclass(frozen=True)
class Routing:
    """How images of no named task are answered; the defaults are the released ones."""

    k: int = 4
    include_base: bool = True
    weighting: Weighting = "uniform"
    temperature: float = 0.05
    space: Space = "logits"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return {
            "k": self.k,
            "include_base": self.include_base,
            "weighting": self.weighting,
            "temperature": self.temperature,
            "space": self.space,
        }


@dataclass(frozen=True)
class Plan:
    """One run.

    Attributes:
        suite: Its name.
        order: "I", "II" or the name of the file that has it.
        tasks: In the order they are learned.
        setting: `mtil` names the task of an image where it has been learned; `task-agnostic` never does;
            `few-shot` is `mtil` on `shots` images a class.
        tuning: What a task may change; a method named after LoRA uses LoRA in any case.
        seed: Of splits, image orders, augmentation and the adapters' initialisation.
        shots: Training images a class; None takes all.
        training: Overrides of the suite's hyper-parameters, for every task.
    """

    suite: str
    order: str
    tasks: tuple[str, ...]
    setting: Setting = "mtil"
    tuning: Tuning = "full"
    seed: int = 0
    shots: int | None = None
    rank: int = DEFAULT_RANK
    rescaler_norm: RescalerNorm = "global_l1"
    unified_dtype: UnifiedDtype = "float32"
    routing: Routing = Routing()
    training: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.setting not in get_args(Setting):
            raise BenchError(
                f"there is no setting {self.setting!r}", remedy=f"use one of {', '.join(get_args(Setting))}"
            )
        try:
            PredictionOptions(**self.routing.to_dict())
        except InvalidOptionsError as error:
            raise BenchError(f"images cannot be routed so: {error}", remedy="change that option") from error
        if self.shots is not None and self.setting != "few-shot":
            raise BenchError(
                f"shots is {self.shots}, but the setting is {self.setting}",
                remedy="add --setting few-shot, or leave --shots out",
            )

    @property
    def num_shots(self) -> int | None:
        """Training images a class, the setting's own where none is given."""
        return self.shots or (FEW_SHOTS if self.setting == "few-shot" else None)

    def identity(self) -> dict[str, Any]:
        """What tells this run from others: a document of another identity is never continued."""
        return {
            "suite": self.suite,
            "order": self.order,
            "tasks": list(self.tasks),
            "setting": self.setting,
            "tuning": self.tuning,
            "seed": self.seed,
            "shots": self.num_shots,
            "rank": self.rank,
            "rescaler_norm": self.rescaler_norm,
            "unified_dtype": self.unified_dtype,
            "prediction": self.routing.to_dict(),
            "training_overrides": dict(self.training),
        }
