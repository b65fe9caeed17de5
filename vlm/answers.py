"""What a request gets: for each picture, labels with probabilities, and who gave them."""

from dataclasses import dataclass

from vlm.errors import ImageRejectedError


@dataclass(frozen=True)
class Prediction:
    """A label and how likely it is among the labels asked for."""

    label: str
    probability: float


@dataclass(frozen=True)
class ExpertShare:
    """One participant of an answer.

    Attributes:
        task: None for the base.
        weight: Its share; an answer's shares sum to 1.
        digest: Of its weights.
        similarity: s_i where the picture chose its experts; None for the base and for a task that was named.
    """

    task: str | None
    weight: float
    digest: str
    similarity: float | None = None


@dataclass(frozen=True)
class ImageResult:
    """The answer for one picture: the likeliest labels first and who took part, or why there is none."""

    predictions: tuple[Prediction, ...] = ()
    experts: tuple[ExpertShare, ...] = ()
    error: ImageRejectedError | None = None
