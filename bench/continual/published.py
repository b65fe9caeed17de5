"""The papers' own numbers, for the tables that stand beside ours: read off there, never measured here.

CLIP ViT-B/16, MTIL order I: Transfer, Average and Last in percent, as the ZSCL and ConDU papers and their
successors print them (method.md section 6). The zero-shot Transfer is 69.4: papers that print 65.3 give the
mean over all tasks, which is no Transfer.
"""

from typing import NamedTuple


class PublishedScores(NamedTuple):
    """Transfer, Average, Last."""

    transfer: float
    average: float
    last: float


MTIL_ORDER_I = {
    "zero-shot": PublishedScores(69.4, 65.3, 65.3),
    "sequential": PublishedScores(44.6, 55.9, 77.3),
    "lwf": PublishedScores(56.9, 64.7, 74.6),
    "wise-ft": PublishedScores(52.3, 60.7, 77.7),
    "condu-lora": PublishedScores(70.3, 78.3, 86.2),
    "condu": PublishedScores(70.8, 78.8, 87.1),
}
"""By our names, those systems that both have."""

OTHERS = {
    "iCaRL": PublishedScores(50.4, 65.7, 80.1),
    "ZSCL": PublishedScores(68.1, 75.4, 83.6),
    "MoE-Adapters": PublishedScores(68.9, 76.7, 85.0),
    "Dual-RAIL": PublishedScores(69.4, 77.8, 86.8),
    "DPeCLIP": PublishedScores(69.1, 77.5, 86.9),
}
"""Systems that are not built here."""
