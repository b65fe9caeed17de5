"""One row an image: its answer, or why there is none."""

from dataclasses import asdict, dataclass
from typing import Any

from bulk.items import Failure
from vlm.answers import ImageResult

COLUMNS = ("image", "label", "probability", "top_k", "experts", "revision", "model", "error")


@dataclass(frozen=True)
class Row:
    """What the output says of one image; its columns are in COLUMNS, in that order.

    Attributes:
        image: What the input calls it.
        result: Its answer.
        failure: Why there is none.
        model: Who was asked.
        revision: In which state; None for a model that has learned nothing.
    """

    image: str
    model: str
    revision: int | None
    result: ImageResult | None = None
    failure: Failure | None = None

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON-able values."""
        predictions = self.result.predictions if self.result else ()
        best = predictions[0] if predictions else None
        return {
            "image": self.image,
            "label": best.label if best else None,
            "probability": best.probability if best else None,
            "top_k": [asdict(each) for each in predictions],
            "experts": [asdict(each) for each in (self.result.experts if self.result else ())],
            "revision": self.revision,
            "model": self.model,
            "error": asdict(self.failure) if self.failure else None,
        }
