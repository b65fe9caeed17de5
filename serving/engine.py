"""The engine: requests of many callers in, answers out; one thread has the device, another one loads experts.

A request's needs (`vlm.inquiry`) are put beside those of all others, by expert (`serving.backlog`). The
device thread runs the batches that `serving.schedule` chooses; the loader fetches experts that are not in
memory, so that nobody but their own callers waits for them; the watchdog takes work off that nobody waits
for any more, and starts the device thread anew when it hangs.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from types import MappingProxyType

import structlog
import torch
from torch import Tensor

from serving.backlog import BEAT_S, Backlog
from serving.device import run_images, run_prompts
from serving.errors import (
    DeadlineExceededError,
    DeviceMemoryError,
    DeviceStuckError,
    OverloadedError,
    ServingError,
)
from serving.metrics import DropReason, ServingMetrics
from serving.schedule import Group, Schedule
from serving.status import EngineStatus
from serving.work import Answered, Batch, ImageBatch, Request, TextBatch
from store.manifest import Manifest
from vlm.bases import BaseRef
from vlm.errors import ImageRejectedError
from vlm.experts import Expert
from vlm.inquiry import Met, Participant
from vlm.prediction import Predictor
from vlm.prediction_options import PredictionOptions

log = structlog.stdlib.get_logger("condu.serving")

TICK_S = 0.25
"""How often the watchdog looks."""

DROPPED: Mapping[type[ServingError], DropReason] = MappingProxyType(
    {
        OverloadedError: "overloaded",
        DeadlineExceededError: "deadline",
        DeviceStuckError: "stuck",
        DeviceMemoryError: "memory",
    }
)
"""Under which word the metrics count requests that got no answer."""


@dataclass(frozen=True)
class EngineLimits:
    """Bounds of the engine; the settings of the same names describe them."""

    max_batch: int = 32
    max_wait_s: float = 0.002
    max_queue: int = 2048
    hang_timeout_s: float = 120.0


class _Turn:
    """One life of the device thread; when it is over, its thread touches nothing any more."""

    def __init__(self) -> None:
        self.is_over = False
        self.beat_at = time.monotonic()
        self.running: tuple[Batch, Group] | None = None
        self.held: ExitStack | None = None


class Engine:
    """Answers requests of many callers at once. Thread-safe.

    Args:
        predictor: What checks requests and keeps class weights; its pool has the experts.
        limits: Of batches, queue and patience.
        metrics: What is told how it goes; by default, one that nobody reads.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        limits: EngineLimits | None = None,
        metrics: ServingMetrics | None = None,
    ) -> None:
        self.predictor = predictor
        self._limits = limits or EngineLimits()
        self._metrics = metrics or ServingMetrics()
        schedule = Schedule(max_batch=self._limits.max_batch, max_wait_s=self._limits.max_wait_s)
        self._backlog = Backlog(predictor, schedule, max_queue=self._limits.max_queue)
        self._num_loading = self._num_restarts = 0
        self._is_closed = threading.Event()
        self._turn = _Turn()
        self._threads = [
            _started("device", self._run_device, self._turn),
            _started("loader", self._run_loader),
            _started("watchdog", self._run_watchdog),
        ]

    def submit(
        self,
        base: BaseRef,
        manifest: Manifest | None,
        images: Sequence[Tensor | ImageRejectedError],
        *,
        options: Sequence[PredictionOptions],
        deadline: float | None = None,
    ) -> Answered:
        """What `Predictor.classify_each` gives, to come; cancelling it takes its work off the device.

        Args:
            base: The model's base.
            manifest: The revision to answer from; None for a model that has learned nothing yet.
            images: As for `classify_each`.
            options: The same.
            deadline: In seconds of time.monotonic(); what is not answered by then gets an error.

        Raises:
            OverloadedError: Too much waits already.
            VlmError: As `classify_each`.
            StoreError: The same.
        """
        request = Request(self.predictor.ask(base, manifest, images, options=options), deadline)
        try:
            self._backlog.enter(request)
        except OverloadedError:
            self._metrics.dropped("overloaded")
            raise
        request.answered.add_done_callback(self._count_dropped)
        try:
            with torch.inference_mode():
                self._backlog.place(request, request.begin())
        except BaseException as error:
            request.fail(error)
            raise
        return request.answered

    def expecting(self, num_images: int) -> AbstractContextManager[None]:
        """Tell that so many images are being read and will be submitted within the context.

        A batch that is not full waits a moment for them, and who cannot be answered is refused before its
        images are decoded.

        Raises:
            OverloadedError: Too much waits already.
        """
        return self._backlog.expecting(num_images)

    def prefetch(self, base: BaseRef, manifest: Manifest | None, task: str | None) -> None:
        """Bring the expert into memory when the loader has nothing better to do and there is room."""
        self._backlog.prefetch(Participant(base, manifest, task))

    def status(self) -> EngineStatus:
        """How it is, now."""
        beat_age_s = time.monotonic() - self._turn.beat_at
        queued = self._backlog.num_queued
        return EngineStatus(
            is_alive=not self._is_closed.is_set() and beat_age_s < self._limits.hang_timeout_s,
            beat_age_s=beat_age_s,
            queued_images=queued,
            max_queue=self._limits.max_queue,
            loading=self._num_loading,
            restarts=self._num_restarts,
            is_overloaded=queued >= self._limits.max_queue,
        )

    def close(self, timeout_s: float) -> None:
        """Take nothing more, finish what was accepted as far as the time allows, and stop the threads."""
        left = self._backlog.drain(timeout_s)
        self._is_closed.set()
        for request in left:
            request.fail(OverloadedError("the service stopped before it came to this", retry_after_s=5))
        for thread in self._threads:
            thread.join(timeout=4 * BEAT_S)

    def _count_dropped(self, answered: Answered) -> None:
        if answered.cancelled():
            self._metrics.dropped("cancelled")
            return
        for kind, reason in DROPPED.items():
            if isinstance(answered.exception(), kind):
                self._metrics.dropped(reason)

    # -- the device thread

    def _run_device(self, turn: _Turn) -> None:
        def goes_on() -> bool:
            turn.beat_at = time.monotonic()
            return not turn.is_over and not self._is_closed.is_set()

        with torch.inference_mode():
            while (found := self._backlog.take_batch(goes_on)) is not None:
                batch, group = found
                turn.running = found
                try:
                    self._run_batch(turn, batch, group)
                except Exception as error:  # the thread has to live on for all the others
                    log.exception("a batch failed")
                    for request in batch.requests:
                        request.fail(error)
                    self._backlog.purge(time.monotonic())
                    self._end_batch(turn, batch, group, seconds=0.0)
        if turn.held is not None:
            turn.held.close()

    def _run_batch(self, turn: _Turn, batch: Batch, group: Group) -> None:
        # Nothing here may hold the expert beyond `end_batch`: it would keep its memory from being used again.
        began_at = time.monotonic()
        met = (
            self._image_batch(_in_memory(group), batch)
            if isinstance(batch, ImageBatch)
            else self._text_batch(_in_memory(group), batch, group)
        )
        seconds = time.monotonic() - began_at
        if not self._end_batch(turn, batch, group, seconds=seconds):
            return
        self._tell(batch, began_at, seconds)
        for request, place, found in met:
            if isinstance(found, Exception):
                request.fail(found)
            else:
                self._backlog.place(request, request.meet(place, found))

    def _end_batch(self, turn: _Turn, batch: Batch, group: Group, *, seconds: float) -> bool:
        """Whether the batch was still this turn's; one that was given up belongs to nobody any more."""
        with self._backlog.changed:
            if turn.is_over:
                return False
            turn.running = None
            self._backlog.end_batch(batch, group, seconds)
            return True

    def _image_batch(self, expert: Expert, batch: ImageBatch) -> list[tuple[Request, int, Met | Exception]]:
        def on_limit(size: int) -> None:
            self._backlog.limit_batch(expert.architecture_digest, size)

        met: list[tuple[Request, int, Met | Exception]] = []
        outcome = run_images(expert, batch, on_limit=on_limit)
        for (job, _, stop), found in zip(batch.parts, outcome, strict=True):
            if isinstance(found, Exception):
                met.append((job.request, job.place, found))
                continue
            job.rows.append(found)
            if stop == len(job.pictures):
                met.append((job.request, job.place, torch.cat(job.rows)))
        return met

    def _text_batch(
        self, expert: Expert, batch: TextBatch, group: Group
    ) -> list[tuple[Request, int, Met | Exception]]:
        run_prompts(expert, batch)
        made = batch.job.made
        if made is None:
            return []
        self.predictor.class_weights.get(batch.job.name, lambda: made)
        return [(request, place, made) for request, place in self._backlog.end_text(batch.job, group)]

    def _tell(self, batch: Batch, began_at: float, seconds: float) -> None:
        if isinstance(batch, ImageBatch):
            waits = [began_at - job.since for job, _, _ in batch.parts]
            self._metrics.batch("image", batch.size, forward_s=seconds, wait_s=waits)
        else:
            self._metrics.batch("text", 0, forward_s=seconds, wait_s=[began_at - batch.job.since])

    # -- the loader

    def _run_loader(self) -> None:
        while (wanted := self._backlog.take_load(lambda: not self._is_closed.is_set())) is not None:
            self._num_loading = 1
            self._load(wanted)
            self._num_loading = 0
            del wanted

    def _load(self, wanted: Group | Participant) -> None:
        is_prefetch = isinstance(wanted, Participant)
        who = wanted if isinstance(wanted, Participant) else wanted.who
        if is_prefetch and not self.predictor.pool.has_room(who.base):
            return
        expert, lease, began_at = None, ExitStack(), time.monotonic()
        error: Exception | None = None
        try:
            expert = lease.enter_context(self.predictor.pool.lease(who.base, who.manifest, who.task))
            self._metrics.loaded(time.monotonic() - began_at)
        except Exception as failure:  # whatever it is, those who wait for this expert must hear of it
            error = failure
            self._metrics.load_failed()
            log.exception("an expert could not be loaded", task=who.task, base=who.base.name)
        if isinstance(wanted, Participant):
            lease.close()
            return
        for request in self._backlog.end_load(wanted, expert, lease):
            request.fail(error or RuntimeError("no expert came of the load"))

    # -- the watchdog

    def _run_watchdog(self) -> None:
        while not self._is_closed.wait(min(TICK_S, self._limits.hang_timeout_s / 4)):
            self._backlog.purge(time.monotonic())
            with self._backlog.changed:
                given_up = self._give_up_if_stuck()
            if given_up is not None:
                self._restart_device(given_up)

    def _give_up_if_stuck(self) -> list[Request] | None:
        """End the turn whose batch hangs, and tell what requests go with it; called with the lock held."""
        turn = self._turn
        if turn.running is None or time.monotonic() - turn.beat_at <= self._limits.hang_timeout_s:
            return None
        turn.is_over, self._turn = True, _Turn()
        batch, group = turn.running
        lost = batch.requests  # before their work is taken off
        turn.held = self._backlog.abandon(batch, group)
        return lost

    def _restart_device(self, lost: Sequence[Request]) -> None:
        log.error("the device thread hangs; starting another one", requests=len(lost))
        for request in lost:
            request.fail(
                DeviceStuckError(
                    f"the device did not answer for {self._limits.hang_timeout_s:g} s and was given up: "
                    "ask again; if it happens again, restart the service"
                )
            )
        self._num_restarts += 1
        self._metrics.restarted()
        self._threads[0] = _started("device", self._run_device, self._turn)


def _in_memory(group: Group) -> Expert:
    assert group.expert is not None  # noqa: S101 - the schedule gives batches of experts in memory alone
    return group.expert


def _started(name: str, run: Callable[..., None], *arguments: object) -> threading.Thread:
    # Daemons: a device that hangs for ever must not keep the process from ending.
    thread = threading.Thread(target=run, args=arguments, name=f"condu-{name}", daemon=True)
    thread.start()
    return thread
