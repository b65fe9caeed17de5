"""References to registered bases: what the catalog knows of them, as values."""

from dataclasses import dataclass

from vlm.architecture import Architecture
from vlm.preprocessing import Preprocessing


@dataclass(frozen=True)
class AdapterRef:
    """The frozen initialisation of a model's adapters, which is a stored base of its own.

    Attributes:
        digest: Of its manifest; revisions of the model name it as their base.
        rank: Of the adapters, where a layer is large enough for it.
        seed: What its values were drawn from.
    """

    digest: str
    rank: int
    seed: int


@dataclass(frozen=True)
class BaseRef:
    """A registered base, and the adapter that a model learns on it, where it is not tuned in full."""

    name: str
    digest: str
    architecture: Architecture
    preprocessing: Preprocessing
    adapter: AdapterRef | None = None

    @property
    def learned_on(self) -> str:
        """Digest of the base that the model's deltas are taken from, as its revisions name it."""
        return self.digest if self.adapter is None else self.adapter.digest
