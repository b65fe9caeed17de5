"""Who the clients are, how many, and how long they go on."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

SHARES = {"classify": 0.25, "list": 0.375, "stats": 0.125, "submit": 0.125, "download": 0.125}
"""Of the clients; what is left over by rounding lists."""
PAUSE_S = {"classify": 1.0, "list": 0.5, "stats": 1.0, "submit": 2.0, "download": 10.0}
"""What a client waits on average from an answer to its next request."""
CATALOG_READS = ("list", "stats")


@dataclass(frozen=True)
class LoadPlan:
    """Sizes of a run.

    Attributes:
        num_clients: Connections, each of whom sends its next request some time after its last was answered.
        seconds: How long they go on, counted from the end of the warm-up.
        warm_up_s: The same load before; then everybody leaves, and what the service holds is counted.
        pause: Times the average pauses; 0 sends at once.
        num_experts: Tasks that the model serves.
        num_classes: Of each task.
        num_photographs: Images that are sent.
        sample_every_s: How often the memory is weighed.
        seed: Of weights, images, pauses and turns.
    """

    num_clients: int = 64
    seconds: float = 300.0
    warm_up_s: float = 30.0
    pause: float = 1.0
    num_experts: int = 8
    num_classes: int = 12
    num_photographs: int = 16
    sample_every_s: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_clients < len(SHARES):
            raise ValueError(f"at least {len(SHARES)} clients make a mix")

    @classmethod
    def quick(cls) -> Self:
        """Everything once and small, to see that it works: such times mean nothing."""
        return cls(
            num_clients=10,
            seconds=4.0,
            warm_up_s=2.0,
            pause=0.2,
            num_experts=2,
            num_classes=4,
            num_photographs=4,
            sample_every_s=0.2,
        )

    def clients(self) -> dict[str, int]:
        """How many there are of each kind."""
        counts = {kind: max(1, int(self.num_clients * share)) for kind, share in SHARES.items()}
        return counts | {"list": counts["list"] + self.num_clients - sum(counts.values())}

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with the mix."""
        return asdict(self) | {"clients": self.clients(), "pause_s": PAUSE_S}


@dataclass(frozen=True)
class Request:
    """One request of a client.

    Attributes:
        route: Method and path of the URL, as answers are counted by it; `{n}` is another number every time.
        named: What else stands in braces.
        body: JSON; `{n}` as in the path. None sends none.
        images: Numbers of photographs, for a form instead.
        then: The route of what follows; `{job}` is the id of the job that was accepted.
    """

    route: str
    named: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    images: tuple[int, ...] = ()
    then: str | None = None

    @property
    def method(self) -> str:
        """Of HTTP."""
        return self.route.partition(" ")[0]

    @property
    def path(self) -> str:
        """Of the URL, with its query."""
        return self.route.partition(" ")[2].format_map(self.named)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `to_dict` gave."""
        return cls(**{**values, "images": tuple(values["images"])})


@dataclass(frozen=True)
class Mix:
    """What each kind of client asks for, in turn.

    Attributes:
        requests: By kind.
    """

    requests: Mapping[str, tuple[Request, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: str, tasks: Sequence[str], *, dataset: str, plan: LoadPlan) -> Self:
        """The requests on one model and its tasks."""
        home, task_home = "/v1/models/{model}", "/v1/models/{model}/tasks/{task}"
        each_task = [{"model": model, "task": task} for task in tasks]
        classify = tuple(
            Request(f"POST {home}/classify?task={{task}}", named, images=(place % plan.num_photographs,))
            for place, named in enumerate(each_task * 2)
        )
        of_model = {"model": model}
        reads = (
            Request("GET /v1/models"),
            *(Request(f"GET {home}{part}", of_model) for part in ("", "/tasks", "/revisions")),
            *(Request(f"GET {task_home}", named) for named in each_task),
            *(Request(f"GET /v1/{path}") for path in ("jobs?limit=20", "bases", "datasets")),
        )
        body = {"name": "learned-{n}", "dataset": dataset, "training": {"iterations": 1}}
        submit = Request(f"POST {home}/tasks", of_model, body, then="POST /v1/jobs/{job}/cancel")
        experts = [Request(f"GET {task_home}/checkpoint", named) for named in each_task]
        bundles = [
            Request(f"GET {home}/bundle", of_model),
            Request(f"GET {home}/bundle?without_base=true", of_model),
        ]
        stats = (Request("GET /v1/stats"),)
        return cls(
            {
                "classify": classify,
                "list": reads,
                "stats": stats,
                "submit": (submit,),
                "download": (*experts, *bundles),
            }
        )
