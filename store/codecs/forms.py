"""What every dtype of a stored unified delta promises."""

from abc import ABC, abstractmethod

import numpy as np
from jaxtyping import UInt8, UInt32

from store.codecs.coding import Part

Values = UInt32[np.ndarray, " values"]
"""Float32 values as bits, none of them zero."""

Pieces = tuple[UInt8[np.ndarray, " _"], ...]


class Form(ABC):
    """How the values of a chunk that are not zero become pieces of bytes, each coded for itself.

    Zeros are never seen here: a chunk's first piece, the same for every dtype, says where they are.
    """

    @abstractmethod
    def piece_sizes(self, count: int) -> tuple[int, ...]:
        """Bytes of each piece, before coding, of `count` values."""

    @abstractmethod
    def encode(self, values: Values) -> tuple[Part, ...]:
        """The coded pieces; rewrites `values` to what `decode` gives back: none zero, signs as they were."""

    @abstractmethod
    def decode(self, pieces: Pieces, values: Values, *, what: str) -> None:
        """Fill `values` from the pieces; `what` names them in an error.

        Raises:
            CorruptBlobError: No encoder writes such pieces.
        """
