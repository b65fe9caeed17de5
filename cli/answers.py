"""What the service answers, as far as the commands look into it; fields they do not know are kept too."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cli.errors import CommandFailedError

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
ENDED: frozenset[JobState] = frozenset({"succeeded", "failed", "cancelled"})


class Answer(BaseModel):
    """A JSON object of the service."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    @classmethod
    def read(cls, body: Any) -> Self:
        """The body, checked; CommandFailedError when the service speaks another version than this client."""
        try:
            return cls.model_validate(body)
        except ValidationError as error:
            raise CommandFailedError(
                f"the service gave an answer this client does not understand ({cls.__name__})",
                detail=str(error),
                remedy="use a client and a service of the same version",
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """The object as it came."""
        return self.model_dump(mode="json")


class BaseAnswer(Answer):
    """A registered base."""

    name: str
    digest: str
    architecture: str | None = None
    parameters: int
    size_bytes: int


class StorageAnswer(Answer):
    """What a model's head takes on disk."""

    base_bytes: int
    adapter_bytes: int = 0
    unified_bytes: int
    trigger_bytes: dict[str, int]
    prototype_bytes: int = 0
    buffer_bytes: int = 0
    marginal_bytes_per_task: int = 0
    full_checkpoint_bytes: int
    total_bytes: int


class ModelAnswer(Answer):
    """A model: a base and all it has learned."""

    name: str
    base: str
    tuning: str = "full"
    lora_rank: int | None = None
    lora_seed: int | None = None
    head_revision: int | None = None
    tasks: tuple[str, ...] = ()
    storage: StorageAnswer | None = None


class BundleImportAnswer(ModelAnswer):
    """The model that a bundle became."""

    bundle: str
    base_is_new: bool


class DatasetAnswer(Answer):
    """A stored dataset."""

    digest: str
    classes: tuple[str, ...]
    images: int


class TaskAnswer(Answer):
    """A learned task, as the head holds it."""

    name: str
    rescaler: float | None = None
    density: float | None = None
    l1_norm: float | None = None
    fidelity: dict[str, Any] | None = None
    accuracy: dict[str, Any] | None = None
    revision_learned: int | None = None
    overlap: tuple[dict[str, Any], ...] = ()
    routing: dict[str, Any] | None = None
    unrouted: str | None = None


class OverlapAnswer(Answer):
    """The masks of a revision's tasks against each other; rows and columns are `tasks`."""

    revision: int | None
    tasks: tuple[str, ...]
    jaccard: tuple[tuple[float, ...], ...]
    share: tuple[tuple[float, ...], ...]


RoutingPart = Literal["chosen_first", "chosen", "weight"]


class RoutingRow(Answer):
    """Where the held-out images of one task go, an entry a column."""

    task: str
    revision: int | None
    images: int
    chosen_first: tuple[float, ...] | None
    chosen: tuple[float, ...] | None
    weight: tuple[float, ...] | None
    unrouted: str | None


class RoutingAnswer(Answer):
    """The routing confusion matrix of a revision; a column None is the base."""

    revision: int | None
    columns: tuple[str | None, ...]
    rows: tuple[RoutingRow, ...]


class JobAnswer(Answer):
    """A job and how far it is."""

    id: str
    state: JobState
    kind: str = ""
    model: str = ""
    task: str | None = None
    attempt: int = 0
    progress: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDED


class Prediction(Answer):
    """One label and how likely it is."""

    label: str
    probability: float


class ExpertShare(Answer):
    """An expert that took part in an answer; task None is the base."""

    task: str | None
    weight: float
    digest: str


class ImageAnswer(Answer):
    """The answer for one image: predictions, or why there are none."""

    predictions: tuple[Prediction, ...] = ()
    experts: tuple[ExpertShare, ...] = ()
    error: Any = None


class ClassifyAnswer(Answer):
    """The answers for all images of a request, in their order, all of one revision."""

    model: str
    revision: int | None = None
    results: tuple[ImageAnswer, ...] = Field(default=())
