"""Processes that train one task together: each learns from its share of a batch, all take the same step."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from accelerate import PartialState  # type: ignore[import-untyped]
from accelerate.utils import reduce  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.distributed import FileStore  # type: ignore[attr-defined]

BUCKET_BYTES = 2**25
"""Gradients are summed in pieces of about this size: few messages, and little memory beside the gradients."""


class TooFewDevicesError(Exception):
    """More training processes are asked for than the machine has GPUs."""


@dataclass(frozen=True)
class Team:
    """One of the processes, as it sees itself.

    Attributes:
        rank: Its number, from 0; number 0 speaks and writes for all.
        size: How many they are.
        device: Where it computes.
    """

    rank: int
    size: int
    device: torch.device

    @classmethod
    def alone(cls, device: str) -> Self:
        """The only process of its training."""
        return cls(0, 1, torch.device(device))

    @classmethod
    def join(cls, meeting: Path, *, rank: int, size: int, device: str) -> Self:
        """The process of that number, once all of them have met.

        Args:
            meeting: A file that is theirs alone and not there yet.
            rank: Its number.
            size: How many they are; one meets nobody.
            device: Of the training; on CUDA each process takes the next GPU.
        """
        if size == 1:
            return cls.alone(device)
        own = device_of(rank, device)
        if own.type == "cuda":
            torch.cuda.set_device(own)
        threads = torch.get_num_threads()
        os.environ.update(_environment(rank, size, own))
        store = FileStore(str(meeting), size)
        PartialState(cpu=own.type == "cpu", store=store, rank=rank, world_size=size)
        torch.set_num_threads(threads)
        return cls(rank, size, own)

    @property
    def is_first(self) -> bool:
        """Whether this one speaks and writes for all."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """Which places of a batch of so many are this process's."""
        least, more = divmod(count, self.size)
        start = self.rank * least + min(self.rank, more)
        return range(start, start + least + (self.rank < more))

    def total(self, value: float) -> float:
        """The sum of what each has."""
        if self.size == 1:
            return value
        return self._summed(torch.tensor([value], dtype=torch.float64)).item()

    def any(self, *claims: bool) -> list[bool]:
        """Of each claim, whether anybody makes it."""
        if self.size == 1:
            return list(claims)
        return [number > 0 for number in self._summed(torch.tensor(claims, dtype=torch.float64)).tolist()]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Put the sum of all processes' gradients in place of each one's own."""
        if self.size == 1:
            return
        bucket: list[Tensor] = []
        for gradient in (parameter.grad for parameter in parameters if parameter.grad is not None):
            bucket.append(gradient)
            if sum(each.nbytes for each in bucket) >= BUCKET_BYTES:
                self._sum_in_place(bucket)
                bucket = []
        if bucket:
            self._sum_in_place(bucket)

    def leave(self) -> None:
        """Say goodbye, when the work is done."""
        if self.size > 1:
            PartialState().destroy_process_group()

    def _sum_in_place(self, gradients: Sequence[Tensor]) -> None:
        summed = self._summed(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        pieces = torch.split(summed, [gradient.numel() for gradient in gradients])
        for gradient, piece in zip(gradients, pieces, strict=True):
            gradient.copy_(piece.view(gradient.shape))

    def _summed(self, tensor: Tensor) -> Tensor:
        summed: Tensor = reduce(tensor.to(self.device), reduction="sum")
        return summed


def device_of(rank: int, device: str) -> torch.device:
    """Where the process of that number computes."""
    first = torch.device(device)
    return first if first.type != "cuda" else torch.device("cuda", (first.index or 0) + rank)


def check_devices(processes: int, device: str) -> None:
    """Nothing, when every training process has a GPU of its own, or none needs one.

    Raises:
        TooFewDevicesError: There are fewer.
    """
    last = device_of(processes - 1, device)
    if processes > 1 and last.type == "cuda" and last.index >= torch.cuda.device_count():
        raise TooFewDevicesError(
            f"{processes} training processes on {device} need the GPUs up to {last}, and this machine has "
            f"{torch.cuda.device_count()}"
        )


def _environment(rank: int, size: int, device: torch.device) -> dict[str, str]:
    """What torchrun would set, and that only this machine takes part."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "ACCELERATE_TORCH_DEVICE": str(device),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "GLOO_SOCKET_IFNAME": os.environ.get("GLOO_SOCKET_IFNAME", "lo"),
    }
