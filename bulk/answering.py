"""Answers for the images of a job, part by part: decoding in threads, ahead of the models."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from bulk.errors import AnswerError
from bulk.formats import FORMATS
from bulk.items import Failure, load
from bulk.plan import Work
from bulk.rows import Row
from bulk.sources import open_reader
from serving.opening import open_predictor
from store.blobs import open_blobs
from store.checkpoints import CheckpointStore
from store.errors import NotFoundError, StoreError
from vlm.errors import VlmError

BATCHES_AHEAD = 3
"""Batches that are read and decoded before a model asks for them."""


@dataclass(frozen=True)
class Batch:
    """Images of one part that go through the models together; what they hold may still be decoding."""

    part: int
    names: tuple[str, ...]
    pictures: "tuple[Future[Tensor | Failure], ...]"
    ends_part: bool


class Answerer:
    """Makes the parts of one job. For one thread; several processes may each have their own.

    Args:
        work: The job, and what it is answered with.
    """

    def __init__(self, work: Work) -> None:
        settings = work.settings
        if settings.num_threads is not None:
            torch.set_num_threads(settings.num_threads)
        self._work = work
        self._form = FORMATS[work.suffix]
        store = CheckpointStore(open_blobs(settings.blob_place))
        self.predictor = open_predictor(settings, store)
        with answerable():
            self.manifest = store.manifest(work.job.manifest) if work.job.manifest else None
        self._reader = open_reader(work.input, work.job.input.kind, work.tar_bounds)

    def check(self) -> None:
        """Nothing, when the options can be met; no image is looked at for that.

        Raises:
            AnswerError: They cannot.
        """
        with answerable():
            self.predictor.ask(self._work.base, self.manifest, [], options=[self._work.options])

    def parts(
        self, numbers: Iterable[int], on_images: Callable[[int], None] = lambda _count: None
    ) -> Iterator[tuple[int, bytes]]:
        """Each part's number and bytes, in the order of the numbers.

        Args:
            numbers: Of the parts that are wanted; rising numbers read a tar once.
            on_images: Called with how many images were answered since the last call.

        Raises:
            AnswerError: The model cannot answer.
            InputError: The input is no longer what it was.
        """
        rows: list[Row] = []
        with closing(self._ahead(numbers)) as batches:
            for batch in batches:
                rows += self._answer(batch)
                on_images(len(batch.names))
                if batch.ends_part:
                    yield batch.part, self._form.encode(rows)
                    rows = []

    def close(self) -> None:
        """Give the input back."""
        self._reader.close()

    def _ahead(self, numbers: Iterable[int]) -> Generator[Batch]:
        """The batches; one thread reads the input and others decode, some batches ahead of the taker."""
        decoders = ThreadPoolExecutor(self._work.settings.decode_threads or os.cpu_count() or 1, "decode")
        reader = ThreadPoolExecutor(1, "read")
        try:
            batches = self._batches(numbers, decoders)
            coming = deque(reader.submit(next, batches, None) for _ in range(BATCHES_AHEAD))
            while (batch := coming.popleft().result()) is not None:
                coming.append(reader.submit(next, batches, None))
                yield batch
        finally:
            reader.shutdown(cancel_futures=True)
            decoders.shutdown(cancel_futures=True)

    def _batches(self, numbers: Iterable[int], decoders: ThreadPoolExecutor) -> Iterator[Batch]:
        work = self._work
        for number in numbers:
            images = work.job.part(number)
            for start in range(images.start, images.stop, work.batch_size):
                stop = min(start + work.batch_size, images.stop)
                items = list(self._reader.read(start, stop))
                pictures = tuple(
                    decoders.submit(load, item, work.base.preprocessing, work.image_limits) for item in items
                )
                yield Batch(number, tuple(item.name for item in items), pictures, stop == images.stop)

    def _answer(self, batch: Batch) -> list[Row]:
        work = self._work
        found = [picture.result() for picture in batch.pictures]
        pictures = [picture for picture in found if isinstance(picture, Tensor)]
        with answerable():
            results = iter(
                self.predictor.classify(work.base, self.manifest, pictures, options=work.options)
                if pictures
                else ()
            )
        return [
            Row(name, work.job.model, work.job.revision, failure=picture)
            if isinstance(picture, Failure)
            else Row(name, work.job.model, work.job.revision, next(results))
            for name, picture in zip(batch.names, found, strict=True)
        ]


@contextmanager
def answerable() -> Iterator[None]:
    """What models and stores raise leaves as AnswerError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise AnswerError(
            "the device has no memory for a batch", remedy="give the same command with a smaller --batch-size"
        ) from error
    except NotFoundError as error:
        raise AnswerError(
            str(error),
            remedy="correct the task; begin anew if the revision expired (CONDU_KEEP_REVISIONS keeps more)",
        ) from error
    except StoreError as error:
        raise AnswerError(str(error), remedy="look at the store: condu verify") from error
    except VlmError as error:
        raise AnswerError(str(error), remedy="correct the options of the command") from error
