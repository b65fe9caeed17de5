"""What waits for the device: requests, and the pieces of work that their needs come down to."""

import time
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

from torch import Tensor

from serving.errors import DeadlineExceededError
from vlm.answers import ImageResult
from vlm.class_weights import Classifier, ClassifierName
from vlm.features import TextMeans
from vlm.inquiry import Inquiry, Met, Need, Participant

Answered = Future[list[list[ImageResult]]]
"""Results per question and image."""


class Request:
    """One caller's inquiry on its way to an answer.

    Args:
        inquiry: What is asked.
        deadline: In seconds of time.monotonic(), after which nothing more is computed for it.
    """

    def __init__(self, inquiry: Inquiry, deadline: float | None) -> None:
        self.answered: Answered = Future()
        self.num_images = sum(isinstance(image, Tensor) for image in inquiry.images)
        self.deadline = deadline
        self._steps = inquiry.answer()
        self._met: list[Met | None] = []
        self._num_unmet = 0

    def is_over(self, now: float) -> bool:
        """Whether nobody waits for it any more; one whose time is over is told so here."""
        if self.deadline is not None and now >= self.deadline:
            self.fail(DeadlineExceededError("the answer did not come in time; ask again, or allow more time"))
        return self.answered.done()

    def begin(self) -> Sequence[Need]:
        """Its first needs; none where it is answered already."""
        return self._step(None)

    def meet(self, place: int, met: Met) -> Sequence[Need]:
        """Take what came of its need number `place`; the next needs, once all of the last ones are met.

        One that has ended, because its caller went or a need of it failed, has no more.
        """
        if self.answered.done():
            return ()
        self._met[place] = met
        self._num_unmet -= 1
        if self._num_unmet:
            return ()
        return self._step([each for each in self._met if each is not None])

    def fail(self, error: BaseException) -> None:
        """End it with an error, unless it has ended."""
        with suppress(InvalidStateError):  # cancelled in this very moment
            if not self.answered.done():
                self.answered.set_exception(error)

    def _step(self, met: list[Met] | None) -> Sequence[Need]:
        try:
            needs = next(self._steps) if met is None else self._steps.send(met)
        except StopIteration as end:
            with suppress(InvalidStateError):
                if not self.answered.done():
                    self.answered.set_result(end.value)
            return ()
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller must hear of it
            self.fail(error)
            return ()
        self._met = [None] * len(needs)
        self._num_unmet = len(needs)
        return needs


@dataclass(eq=False)
class ImageJob:
    """Image features that one request needs of one expert; done in as many batches as it takes.

    Attributes:
        num_taken: Pictures that are done or in the batch that runs.
        rows: Features of those that are done.
    """

    request: Request
    place: int
    pictures: Sequence[Tensor]
    since: float = field(default_factory=time.monotonic)
    num_taken: int = 0
    rows: list[Tensor] = field(default_factory=list)

    @property
    def num_left(self) -> int:
        """Pictures that no batch has taken yet."""
        return len(self.pictures) - self.num_taken


@dataclass(eq=False)
class TextJob:
    """A classifier that is being made for all requests that need it."""

    name: ClassifierName
    means: TextMeans
    waiting: list[tuple[Request, int]]
    since: float = field(default_factory=time.monotonic)
    made: Classifier | None = None


@dataclass(frozen=True)
class ImageBatch:
    """Pictures of one expert that run at once: from each job, those from `start` up to `stop`."""

    who: Participant
    parts: tuple[tuple[ImageJob, int, int], ...]

    @property
    def size(self) -> int:
        """How many pictures."""
        return sum(stop - start for _, start, stop in self.parts)

    @property
    def requests(self) -> list[Request]:
        """Whose they are."""
        return [job.request for job, _, _ in self.parts]


@dataclass(frozen=True)
class TextBatch:
    """The next prompts of a classifier in the making."""

    who: Participant
    job: TextJob

    @property
    def requests(self) -> list[Request]:
        """Who waits for it."""
        return [request for request, _ in self.job.waiting]


Batch = ImageBatch | TextBatch
