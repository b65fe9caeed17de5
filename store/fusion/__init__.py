"""Fusion kinds: pure mathematics on flat buffers, one file a kind, one contract.

No other room knows which kind a model uses; it asks `fusion_kind` for it by the name that the manifest
records.
"""

from store.errors import UnsupportedFormatError
from store.fusion.condu import Condu
from store.fusion.contract import (
    Chunk,
    Fold,
    FoldedTask,
    FusionKind,
    OldTask,
    ReadMask,
    WriteMask,
    WriteUnified,
)
from store.fusion.measures import TensorWeights, weighted_l1

_KINDS: dict[str, FusionKind] = {"condu": Condu()}


def fusion_kind(name: str) -> FusionKind:
    """The fusion kind of this name.

    Raises:
        UnsupportedFormatError: This version does not know it.
    """
    if name not in _KINDS:
        raise UnsupportedFormatError(
            f"fusion kind {name!r} is unknown; this version knows {', '.join(_KINDS)}: upgrade condu"
        )
    return _KINDS[name]


__all__ = [
    "Chunk",
    "Fold",
    "FoldedTask",
    "FusionKind",
    "OldTask",
    "ReadMask",
    "TensorWeights",
    "WriteMask",
    "WriteUnified",
    "fusion_kind",
    "weighted_l1",
]
