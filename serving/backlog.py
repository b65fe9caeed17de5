"""What waits, shared by the threads of the engine behind one lock: requests in, batches and loads out."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import ceil

from serving.errors import OverloadedError
from serving.schedule import Group, Schedule
from serving.work import Batch, ImageBatch, ImageJob, Request, TextJob
from vlm.class_weights import Classifier
from vlm.experts import Expert
from vlm.features import TextMeans
from vlm.inquiry import ClassifierNeeded, Need, Participant
from vlm.prediction import Predictor

BEAT_S = 0.5
"""The longest that a thread with nothing to do sleeps."""
PATIENCE_S = 0.25
"""How long an expert that is not in memory waits before one that is, and that is wanted too, gives way."""
MAX_PREFETCHES = 1000
FIRST_IMAGE_S = 0.05
"""What an image is taken to cost before one was measured."""


class Backlog:
    """Requests on their way. Thread-safe.

    Args:
        predictor: Whose class weights meet needs at once, and whose pool has the experts.
        schedule: Whose turn it is.
        max_queue: Most images that may wait.
    """

    def __init__(self, predictor: Predictor, schedule: Schedule, *, max_queue: int) -> None:
        self.schedule = schedule
        self.changed = threading.Condition()
        self.num_queued = 0
        self._open: set[Request] = set()
        self._predictor = predictor
        self._pool = predictor.pool
        self._max_queue = max_queue
        self._num_expected = 0
        self._image_s = FIRST_IMAGE_S
        self._prefetches: deque[Participant] = deque(maxlen=MAX_PREFETCHES)
        self._is_closing = False

    # -- requests

    def enter(self, request: Request) -> None:
        """Count the request until it has ended; OverloadedError where no more may wait."""
        with self.changed:
            self._refuse_more_than_fit(request.num_images, self.num_queued)
            self.num_queued += request.num_images
            self._open.add(request)
        request.answered.add_done_callback(lambda _: self._leave(request))

    @contextmanager
    def expecting(self, num_images: int) -> Iterator[None]:
        """Reckon with so many images; OverloadedError where no more may wait."""
        with self.changed:
            self._refuse_more_than_fit(num_images, self.num_queued + self._num_expected)
            self._num_expected += num_images
        try:
            yield
        finally:
            with self.changed:
                self._num_expected -= num_images
                self.changed.notify_all()

    def place(self, request: Request, needs: Sequence[Need]) -> None:
        """Let the needs wait for their experts; those that need no expert are met at once."""
        while needs:
            with self.changed:
                known = [self._known(need) for need in needs]
                missing = [place for place, found in enumerate(known) if found is None]
                if missing:
                    # Met before the device sees the rest: no two threads may take the request's next step.
                    for place, found in enumerate(known):
                        if found is not None:
                            request.meet(place, found)
                    for place in missing:
                        self._add(request, place, needs[place])
                    self.changed.notify_all()
                    return
            following: Sequence[Need] = ()
            for place, found in enumerate(known):
                assert found is not None  # noqa: S101 - none is missing
                following = request.meet(place, found)
            needs = following

    def drain(self, timeout_s: float) -> list[Request]:
        """Take no more requests, wait for those that are here, and give those that are left."""
        with self.changed:
            self._is_closing = True
            self.changed.wait_for(lambda: not self._open, timeout_s)
            return list(self._open)

    def purge(self, now: float) -> None:
        """Take the work off that nobody waits for any more."""
        with self.changed, ExitStack() as leases:
            for group in self.schedule.groups():
                self.schedule.drop(group, lambda request: request.is_over(now))
                self._forget_if_idle(group, leases)

    # -- the device

    def take_batch(self, goes_on: Callable[[], bool]) -> tuple[Batch, Group] | None:
        """The next batch, waited for; None as soon as it is not to go on."""
        with self.changed:
            while goes_on():
                now = time.monotonic()
                is_more_expected = self._num_expected > 0
                found = self.schedule.next_batch(now, is_more_expected=is_more_expected)
                if found is not None:
                    found[1].is_running = True
                    return found
                wait_s = self.schedule.wait_s(now) if is_more_expected else None
                self.changed.wait(BEAT_S if wait_s is None else min(BEAT_S, wait_s))
        return None

    def end_batch(self, batch: Batch, group: Group, seconds: float) -> None:
        """The batch is through, and took so long: the expert may be let go."""
        with self.changed, ExitStack() as leases:
            group.is_running = False
            self.schedule.done(group, seconds)
            if isinstance(batch, ImageBatch):
                self._image_s += 0.1 * (seconds / batch.size - self._image_s)
            self._forget_if_idle(group, leases)
            self.changed.notify_all()

    def end_text(self, job: TextJob, group: Group) -> list[tuple[Request, int]]:
        """The classifier is made: nobody can join those who wait for it, and here they are."""
        with self.changed:
            self.schedule.remove_text(group, job)
            return job.waiting

    def limit_batch(self, architecture: str, size: int) -> None:
        """No more pictures of that architecture fit into the device's memory at once."""
        with self.changed:
            self.schedule.limit_batch(architecture, size)

    def abandon(self, batch: Batch, group: Group) -> ExitStack | None:
        """The batch will not come back: take its work off, and give the lease that it still holds."""
        with self.changed:
            group.is_running = False
            lost = set(map(id, batch.requests))
            self.schedule.drop(group, lambda request: id(request) in lost)
            lease, group.lease, group.expert = group.lease, None, None
            if group.is_idle:
                self.schedule.forget_if_idle(group)
            else:
                self._lease_if_here(group)
            self.changed.notify_all()
            return lease

    # -- the loader

    def prefetch(self, who: Participant) -> None:
        """Let the expert be loaded when nothing waits for another one and there is room."""
        with self.changed:
            self._prefetches.append(who)
            self.changed.notify_all()

    def take_load(self, goes_on: Callable[[], bool]) -> Group | Participant | None:
        """The next expert to load, waited for: one that work waits for, else one to prefetch."""
        with self.changed:
            while goes_on():
                group = self.schedule.next_load()
                if group is not None and self._may_load(group):
                    group.is_loading = True
                    return group
                if group is None and self._prefetches:
                    return self._prefetches.popleft()
                self.changed.wait(BEAT_S if group is None else PATIENCE_S / 4)
        return None

    def end_load(self, group: Group, expert: Expert | None, lease: ExitStack) -> list[Request]:
        """The expert is in memory, held by the lease; where it is None, these are the requests that fail."""
        with self.changed, ExitStack() as leases:
            group.is_loading = False
            failed = list(group.requests()) if expert is None else []
            if expert is None:
                self.schedule.drop(group, lambda _: True)
            else:
                group.expert, group.lease = expert, lease
            self._forget_if_idle(group, leases)
            self.changed.notify_all()
            return failed

    def _may_load(self, group: Group) -> bool:
        if self._pool.has_room(group.who.base) or not self.schedule.has_ready():
            return True
        now = time.monotonic()
        if now - group.absent_since < PATIENCE_S:
            return False
        gives_way = self.schedule.most_served()
        if gives_way is not None and gives_way.lease is not None:
            lease, gives_way.lease, gives_way.expert = gives_way.lease, None, None
            gives_way.absent_since = now
            lease.close()
        return self._pool.has_room(group.who.base)

    def _refuse_more_than_fit(self, num_images: int, num_before: int) -> None:
        if self._is_closing:
            raise OverloadedError("the service is stopping; ask again in a moment", retry_after_s=5)
        # A request of more images than the bound is taken when it is the only one.
        if num_before and num_before + num_images > self._max_queue:
            raise OverloadedError(
                f"{num_before} images wait already, and at most {self._max_queue} may: ask again later",
                retry_after_s=min(60, max(1, ceil(num_before * self._image_s))),
            )

    def _leave(self, request: Request) -> None:
        with self.changed:
            self.num_queued -= request.num_images
            self._open.discard(request)
            self.changed.notify_all()

    def _known(self, need: Need) -> Classifier | None:
        return self._predictor.class_weights.find(need.name) if isinstance(need, ClassifierNeeded) else None

    def _add(self, request: Request, place: int, need: Need) -> None:
        if isinstance(need, ClassifierNeeded):
            job = self.schedule.text_job(need.name)
            if job is not None:
                job.waiting.append((request, place))
                return
            means = TextMeans(need.labels, need.templates)
            group = self.schedule.add(need.who, TextJob(need.name, means, [(request, place)]))
        else:
            group = self.schedule.add(need.who, ImageJob(request, place, need.pictures))
        if group.expert is None and not group.is_loading:
            self._lease_if_here(group)

    def _lease_if_here(self, group: Group) -> None:
        who = group.who
        with ExitStack() as stack:
            group.expert = stack.enter_context(self._pool.lease_if_here(who.base, who.manifest, who.task))
            group.lease = stack.pop_all() if group.expert is not None else None

    def _forget_if_idle(self, group: Group, leases: ExitStack) -> None:
        lease = self.schedule.forget_if_idle(group)
        if lease is not None:
            leases.push(lease)
