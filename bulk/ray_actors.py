"""The same job on Ray Data: one actor a device, each with its own experts; parts are what goes around.

An actor gets numbers of parts, reads their images itself and gives back the parts' bytes; the process that
was started writes them. So every machine must see the input and the blobs under the same paths.
"""

import math
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from bulk import errors
from bulk.answering import Answerer
from bulk.errors import BulkError, RayError
from bulk.main import Parts
from bulk.plan import Work

LOCAL = "local"
CONNECT_TIMEOUT_S = 10.0
MAX_TASKS = 10_000
"""Beyond this many, Ray is busier with its own books than with the parts."""


class OverRay:
    """Makes parts on the actors of a Ray cluster.

    Args:
        address: `local` starts one on this machine for the job; else as `ray.init` takes it.
        num_actors: None for one a GPU of the cluster, or one a machine where there are no GPUs.
    """

    def __init__(self, address: str = LOCAL, num_actors: int | None = None) -> None:
        self._address = address
        self._num_actors = num_actors

    def __call__(self, work: Work, numbers: Sequence[int], on_images: Callable[[int], None]) -> Parts:
        """The parts in the order in which they are finished.

        Raises:
            RayError: Ray is not installed or not there, or an actor is lost for good.
            BulkError: What an actor met.
        """
        ray = _ray()
        check_reachable(self._address)
        try:
            ray.init(address=self._address, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise _unreachable(self._address, error) from error
        try:
            yield from self._parts(ray, work, numbers, on_images=on_images)
        except ray.exceptions.RayError as error:
            raise RayError(
                f"Ray gave up: {str(error).strip().splitlines()[-1]}",
                remedy="mend the cluster, then give the same command again: it goes on where it stopped",
            ) from error
        finally:
            ray.shutdown()

    def _parts(
        self, ray: Any, work: Work, numbers: Sequence[int], *, on_images: Callable[[int], None]
    ) -> Iterator[tuple[int, bytes]]:
        from ray.data import ActorPoolStrategy, DataContext  # noqa: PLC0415 - an extra

        DataContext.get_current().enable_progress_bars = False
        share = share_of(ray.nodes(), self._num_actors)
        parts = ray.data.from_items(
            [{"part": number} for number in numbers], override_num_blocks=min(len(numbers), MAX_TASKS)
        ).map_batches(
            PartActor,
            fn_constructor_kwargs={"work": work},
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=min(share.pop("actors"), len(numbers))),
            **share,
        )
        for made in parts.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0):
            (row,) = made.to_pylist()
            number, content = unpacked(row)
            on_images(len(work.job.part(number)))
            yield number, content


class PartActor:
    """Holds one device's experts, and answers for one part after the other.

    What goes wrong comes back as a row: an error of ours then needs no way through Ray's.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._answerer: Answerer | None = None

    def __call__(self, wanted: pa.Table) -> pa.Table:
        """A table with a row a part: its bytes, or what went wrong."""
        return pa.Table.from_pylist(
            [self.made(number) for number in wanted.column("part").to_pylist()], schema=_MADE
        )

    def made(self, number: int) -> dict[str, Any]:
        """The part's row."""
        row: dict[str, Any] = {
            "part": number,
            "content": None,
            "error": None,
            "message": None,
            "remedy": None,
        }
        try:
            self._answerer = self._answerer or Answerer(self._work)
            ((_, content),) = self._answerer.parts([number])
        except BulkError as error:
            return {**row, "error": type(error).__name__, "message": error.message, "remedy": error.remedy}
        return {**row, "content": content}


def check_reachable(address: str) -> None:
    """RayError when nobody listens at HOST:PORT; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> RayError:
    return RayError(
        f"no Ray cluster answers at {address}: {error}",
        remedy="start one (ray start --head) and name it, or use --ray local",
    )


def unpacked(row: dict[str, Any]) -> tuple[int, bytes]:
    """The part of an actor's row, or the error that it met, raised."""
    if row["error"] is not None:
        kind: type[BulkError] = getattr(errors, row["error"])
        raise kind(row["message"], remedy=row["remedy"])
    return row["part"], row["content"]


_MADE = pa.schema(
    [
        ("part", pa.int64()),
        ("content", pa.large_binary()),
        ("error", pa.string()),
        ("message", pa.string()),
        ("remedy", pa.string()),
    ]
)


def share_of(nodes: Sequence[dict[str, Any]], num_actors: int | None) -> dict[str, Any]:
    """How many actors there are, and what each of them takes of the cluster."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    num_gpus = int(sum(node.get("GPU", 0) for node in alive))
    if num_gpus:
        return {"actors": num_actors or num_gpus, "num_gpus": min(1.0, num_gpus / (num_actors or num_gpus))}
    cpus = [node["CPU"] for node in alive if node.get("CPU")] or [1.0]
    actors = num_actors or len(cpus)
    share = min(cpus) / math.ceil(actors / len(cpus))
    return {"actors": actors, "num_cpus": int(share) if share >= 1 else share}


def _ray() -> Any:
    try:
        import ray  # noqa: PLC0415 - an extra
        import ray.data  # noqa: PLC0415
    except ImportError as error:
        raise RayError("Ray is not installed", remedy="pip install 'condu[ray]' on every machine") from error
    return ray
