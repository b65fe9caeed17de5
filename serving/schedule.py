"""Whose turn it is: what waits for each expert, which batch runs next, which expert is loaded next.

No thread of its own and no lock: the engine calls it with its lock held.

The device serves experts by the time they have had of it, the least first, so that an expert with a thousand
images waiting does not keep a single image of another one waiting. Within an expert, requests share a batch
evenly for the same reason. An expert keeps its lease while work waits for it; one that is not in memory
waits for the loader, which takes the expert that has waited longest.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

from serving.work import Batch, ImageBatch, ImageJob, Request, TextBatch, TextJob
from vlm.class_weights import ClassifierName
from vlm.experts import Expert
from vlm.inquiry import Participant

Name = tuple[str, str]
"""Of a participant: digests of its architecture and weights."""


@dataclass(eq=False)
class Group:
    """All that waits for one expert.

    Attributes:
        expert: None while it is not in memory.
        lease: What keeps it there.
        absent_since: When it was last found not to be there.
        is_loading: Whether the loader is at it.
        is_running: Whether the device is at it.
        device_s: Seconds of the device that it has had, from where the others stood when it came.
    """

    who: Participant
    device_s: float
    images: deque[ImageJob] = field(default_factory=deque)
    texts: deque[TextJob] = field(default_factory=deque)
    expert: Expert | None = None
    lease: ExitStack | None = None
    absent_since: float = field(default_factory=time.monotonic)
    is_loading: bool = False
    is_running: bool = False
    had_text: bool = True

    @property
    def since(self) -> float:
        """When the work came that has waited longest."""
        return min(jobs[0].since for jobs in (self.images, self.texts) if jobs)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits for it."""
        return not self.images and not self.texts

    def requests(self) -> Iterator[Request]:
        """Whose work it is, a request as often as it has work here."""
        yield from (job.request for job in self.images)
        for text in self.texts:
            yield from (request for request, _ in text.waiting)


class Schedule:
    """What waits, by expert.

    Args:
        max_batch: Most pictures of a batch.
        max_wait_s: How long a batch that is not full waits for more, while more is expected.
    """

    def __init__(self, *, max_batch: int, max_wait_s: float) -> None:
        self._max_batch = max_batch
        self._max_wait_s = max_wait_s
        self._groups: dict[Name, Group] = {}
        self._texts: dict[ClassifierName, TextJob] = {}
        self._fitting: dict[str, int] = {}
        self._clock = 0.0
        self._had: dict[Name, float] = {}

    def groups(self) -> list[Group]:
        """Every expert that something waits for."""
        return list(self._groups.values())

    def text_job(self, name: ClassifierName) -> TextJob | None:
        """The job that makes that classifier, where one does."""
        return self._texts.get(name)

    def add(self, who: Participant, job: ImageJob | TextJob) -> Group:
        """Let the work wait for its expert."""
        group = self._groups.get(who.name)
        if group is None:
            had = max(self._clock, self._had.pop(who.name, 0.0))
            group = self._groups[who.name] = Group(who, had)
        if isinstance(job, ImageJob):
            group.images.append(job)
        else:
            group.texts.append(job)
            self._texts[job.name] = job
        return group

    def next_batch(self, now: float, *, is_more_expected: bool) -> tuple[Batch, Group] | None:
        """What the device does next, of the experts in memory; None where it has nothing to do now."""
        runnable = [each for each in self._ready() if not is_more_expected or self._is_due(each, now)]
        if not runnable:
            return None
        group = min(runnable, key=lambda each: each.device_s)
        self._clock = max(self._clock, group.device_s)
        if group.images and (group.had_text or not group.texts):
            group.had_text = False
            return self._image_batch(group), group
        group.had_text = True
        return TextBatch(group.who, group.texts[0]), group

    def wait_s(self, now: float) -> float | None:
        """Seconds until a batch that waits for more is due; None where none waits."""
        return min((max(0.0, each.since + self._max_wait_s - now) for each in self._ready()), default=None)

    def next_load(self) -> Group | None:
        """The expert that has waited longest to be in memory."""
        absent = [
            each
            for each in self._groups.values()
            if each.expert is None and not each.is_loading and not each.is_idle
        ]
        return min(absent, key=lambda group: group.since, default=None)

    def has_ready(self) -> bool:
        """Whether the device has something to do without a load."""
        return bool(self._ready())

    def most_served(self) -> Group | None:
        """Of the experts in memory waited for and not running, the one that the device served most."""
        waiting = [each for each in self._ready() if not each.is_running]
        return max(waiting, key=lambda group: group.device_s, default=None)

    def limit_batch(self, architecture: str, size: int) -> None:
        """Never again give the device more pictures of that architecture at once."""
        self._fitting[architecture] = max(1, min(size, self._fitting.get(architecture, size)))

    def done(self, group: Group, seconds: float) -> None:
        """Count what a batch took."""
        group.device_s += seconds

    def remove_text(self, group: Group, job: TextJob) -> None:
        """Take a classifier off that is made, or that cannot be."""
        if self._texts.get(job.name) is job:
            group.texts.remove(job)
            del self._texts[job.name]

    def drop(self, group: Group, is_over: Callable[[Request], bool]) -> int:
        """Take the work off that nobody waits for any more; tell how much that was.

        Pictures that the device is busy with stay until it is done with them.
        """
        before = len(group.images) + len(group.texts)
        for image in [job for job in group.images if is_over(job.request)]:
            group.images.remove(image)
        for text in list(group.texts):
            text.waiting[:] = [(request, place) for request, place in text.waiting if not is_over(request)]
            if not text.waiting:
                self.remove_text(group, text)
        return before - len(group.images) - len(group.texts)

    def forget_if_idle(self, group: Group) -> ExitStack | None:
        """Where nothing waits for the expert any more: forget it, and give the lease that can end."""
        is_known = self._groups.get(group.who.name) is group
        if not is_known or not group.is_idle or group.is_running or group.is_loading:
            return None
        del self._groups[group.who.name]
        # Remembered while it is ahead of the others: else who comes and goes would always be served first.
        self._had = {name: had for name, had in self._had.items() if had > self._clock}
        self._had[group.who.name] = group.device_s
        lease, group.lease, group.expert = group.lease, None, None
        return lease

    def _ready(self) -> list[Group]:
        return [each for each in self._groups.values() if each.expert is not None and not each.is_idle]

    def _is_due(self, group: Group, now: float) -> bool:
        if group.texts or now - group.since >= self._max_wait_s:
            return True
        return sum(job.num_left for job in group.images) >= self._size_limit(group)

    def _size_limit(self, group: Group) -> int:
        return min(self._max_batch, self._fitting.get(group.who.name[0], self._max_batch))

    def _image_batch(self, group: Group) -> ImageBatch:
        """Pictures of as many requests as there are, an even share each, and then more of the first ones."""
        limit = self._size_limit(group)
        share = max(1, limit // len(group.images))
        taken: dict[ImageJob, int] = {}
        room = limit
        for most in (share, limit):
            for job in group.images:
                num = min(job.num_left - taken.get(job, 0), most, room)
                if num > 0:
                    taken[job] = taken.get(job, 0) + num
                    room -= num
        parts = []
        for job, num in taken.items():
            parts.append((job, job.num_taken, job.num_taken + num))
            job.num_taken += num
            if job.num_left == 0:
                group.images.remove(job)
        return ImageBatch(group.who, tuple(parts))
