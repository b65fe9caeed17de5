"""Sees to it that the right experts are in memory before they are asked for, and the unused ones are not.

A thread that looks once a second: it brings what is to be preloaded into memory, holds what is pinned, has
the experts of a new head fetched whose forerunners are in memory, and lets go of what nobody used for long.
"""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import structlog

from catalog import Catalog
from catalog.errors import NoSuchRowError
from catalog.models import list_models
from serving.engine import Engine
from serving.errors import UnknownTaskError
from serving.pinning import Heads, PinnedRevision

LOOK_S = 1.0
CLOSE_TIMEOUT_S = 5.0
PINNED_SHARE = 0.5
"""Of the cache's bound; what is left has to hold the base, the unified delta and whoever is not pinned."""

Place = tuple[str, str | None]
"""A model and a task of it, or None for its base."""

log = structlog.stdlib.get_logger("condu.serving")


@dataclass(frozen=True)
class ResidentsStatus:
    """What came of the wishes.

    Attributes:
        pinned: Experts and bases that are held in memory.
        problems: Wishes that could not be met, and why.
        readable: Models whose head can be read.
        unreadable: Models whose head cannot.
        age_s: Seconds since the last look that came to its end.
    """

    pinned: int
    problems: tuple[str, ...]
    readable: int
    unreadable: tuple[str, ...]
    age_s: float


class Residents:
    """Keeps the wished experts in memory until it is closed.

    Args:
        engine: Whose memory it is.
        catalog: Tells which models there are.
        heads: Tells their heads.
        preload: `model` (its base and all experts of its head) or `model/task`: fetched once, at the start.
        pin: The same, held for good; when a head moves, its experts take the place of the old ones.
        idle_s: What nobody used for so long is dropped; None keeps it.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        catalog: Catalog,
        heads: Heads,
        preload: tuple[str, ...] = (),
        pin: tuple[str, ...] = (),
        idle_s: float | None = None,
    ) -> None:
        self._engine, self._catalog, self._heads = engine, catalog, heads
        self._pool = engine.predictor.pool
        self._preload, self._pin, self._idle_s = preload, pin, idle_s
        self._seen: dict[str, PinnedRevision] = {}
        self._held: dict[Place, tuple[str, ExitStack]] = {}
        self._problems: dict[str, str] = {}
        self._unsure: set[str] = set()
        self._unreadable: tuple[str, ...] = ()
        self._looked_at = time.monotonic()
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="condu-residents", daemon=True)
        self._thread.start()

    def status(self) -> ResidentsStatus:
        """What is held, and what is wrong, as of the last look."""
        return ResidentsStatus(
            pinned=len(self._held),
            problems=tuple(f"{wish}: {problem}" for wish, problem in self._problems.items()),
            readable=len(self._seen),
            unreadable=tuple(self._unreadable),
            age_s=time.monotonic() - self._looked_at,
        )

    def close(self) -> None:
        """Let go of everything."""
        self._is_closed.set()
        # Not for ever: it may be reading from a disk that does not answer.
        self._thread.join(CLOSE_TIMEOUT_S)
        while self._held:
            self._held.popitem()[1][1].close()

    def look(self) -> None:
        """Bring what is in memory in line with the wishes, once."""
        self._follow_heads()
        self._unsure.clear()
        for wish in self._preload:
            self._attempt(wish, self._fetch)
        self._preload = tuple(wish for wish in self._preload if wish in self._problems)
        wanted: set[Place] = set()
        for wish in self._pin:
            self._attempt(wish, partial(self._hold, wanted))
        for place in [each for each in self._held if each not in wanted and each[0] not in self._unsure]:
            self._held.pop(place)[1].close()
        if self._idle_s is not None:
            self._pool.drop_idle(self._idle_s)
        self._looked_at = time.monotonic()

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except Exception:  # it has to look again, whatever went wrong this time
                log.exception("the residents could not be looked after")
            if self._is_closed.wait(LOOK_S):
                return

    def _attempt(self, wish: str, act: Callable[[PinnedRevision, str | None], None]) -> None:
        """Do it for every participant of the wish; a failure is told once and tried again later."""
        model, _, task = wish.partition("/")
        try:
            pinned = self._heads.pin(model)
            for each in [task] if task else [None, *pinned.task_names]:
                act(pinned, each)
        except Exception as error:
            if self._problems.get(wish) != str(error):
                log.exception("an expert cannot be kept in memory", wish=wish)
            self._problems[wish] = str(error)
            if not isinstance(error, NoSuchRowError | UnknownTaskError):
                self._unsure.add(model)
        else:
            self._problems.pop(wish, None)

    def _fetch(self, pinned: PinnedRevision, task: str | None) -> None:
        if task is not None:
            pinned.require_task(task)
        self._engine.prefetch(pinned.ref, pinned.manifest, task)

    def _hold(self, wanted: set[Place], pinned: PinnedRevision, task: str | None) -> None:
        """Hold the head's expert; the one of the head before is let go of when this one is there."""
        digest = pinned.base.digest if task is None else pinned.require_task(task).expert_digest(task)
        place = (pinned.model.name, task)
        wanted.add(place)
        held = self._held.get(place)
        if held is not None and held[0] == digest:
            return
        if held is None:
            self._refuse_too_much(pinned)
        with ExitStack() as stack:
            stack.enter_context(self._pool.lease(pinned.ref, pinned.manifest, task))
            self._held[place] = (digest, stack.pop_all())
        if held is not None:
            held[1].close()

    def _refuse_too_much(self, pinned: PinnedRevision) -> None:
        stats = self._pool.stats()
        size_bytes = 4 * pinned.base.num_parameters
        if (len(self._held) + 1) * size_bytes > PINNED_SHARE * stats.max_bytes:
            raise ValueError(
                f"one more pinned expert of {size_bytes} bytes would fill more than half of the "
                f"{stats.max_bytes} bytes for experts: raise CONDU_EXPERT_CACHE_BYTES or pin fewer"
            )

    def _follow_heads(self) -> None:
        """Have the experts of a new head fetched of which the old head's are in memory."""
        with self._catalog.snapshot() as session:
            models = {model.name: model.head_revision for model in list_models(session)}
        here = {entry.digest for entry in self._pool.entries()}
        unreadable = []
        for name, head in models.items():
            before = self._seen.get(name)
            if before is not None and before.number == head:
                continue
            try:
                after = self._heads.pin(name)
            except Exception:
                unreadable.append(name)
                if name not in self._unreadable:
                    log.exception("the head cannot be read: run `condu verify`", model=name)
                continue
            self._seen[name] = after
            if before is not None and before.manifest is not None and after.manifest is not None:
                for task in set(before.task_names) & set(after.task_names):
                    if before.manifest.expert_digest(task) in here:
                        self._engine.prefetch(after.ref, after.manifest, task)
        for name in self._seen.keys() - models.keys():
            del self._seen[name]
        self._unreadable = tuple(unreadable)
