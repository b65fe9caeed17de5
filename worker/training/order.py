"""Which images an iteration sees, told from the seed and the iteration alone: there is nothing to save."""

import hashlib
from collections.abc import Sequence

import torch


def derived_seed(seed: int, *parts: str | int) -> int:
    """A 63-bit seed that depends on all its parts, so that no two streams of chance run alike."""
    text = "/".join(str(part) for part in (seed, *parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class ImageOrder:
    """Endless epochs, each a permutation of its own, cut into batches across epoch boundaries.

    Args:
        positions: The images to train on.
        batch_size: Images an iteration.
        seed: The job's.
    """

    def __init__(self, positions: Sequence[int], *, batch_size: int, seed: int) -> None:
        self._positions = tuple(positions)
        self._batch_size = batch_size
        self._seed = seed
        self._epochs: dict[int, list[int]] = {}

    def batch(self, iteration: int) -> list[int]:
        """The positions that the iteration (counted from 0) trains on."""
        start = iteration * self._batch_size
        size = len(self._positions)
        chosen = []
        for place in range(start, start + self._batch_size):
            epoch, within = divmod(place, size)
            chosen.append(self._positions[self._permutation(epoch)[within]])
        return chosen

    def _permutation(self, epoch: int) -> list[int]:
        if epoch not in self._epochs:
            if len(self._epochs) > 2:  # batches are asked for nearly in order
                self._epochs.pop(min(self._epochs))
            generator = torch.Generator().manual_seed(derived_seed(self._seed, "epoch", epoch))
            self._epochs[epoch] = torch.randperm(len(self._positions), generator=generator).tolist()
        return self._epochs[epoch]
