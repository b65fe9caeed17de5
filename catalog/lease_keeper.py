"""The two threads that every worker has: one says that it lives, one takes over from those that do not."""

import logging
from collections.abc import Callable
from threading import Event, Thread

from sqlalchemy.exc import IntegrityError

from catalog import Catalog
from catalog.workers import (
    WorkerRecord,
    beat,
    is_dead,
    list_workers,
    register_dead_worker,
    register_worker,
)

_log = logging.getLogger(__name__)

# How often to look for dead workers; a look is one small read.
_LONGEST_WATCH_S = 1.0


class LeaseKeeper:
    """Keeps one worker's lease, and watches those of the others.

    Args:
        catalog: where the leases are.
        worker_id: whose lease it is.
        device: what the worker runs on, for show.
        lease_s: after this long without a beat the worker is taken for dead.
        beat_s: seconds between beats.
        take_over: how the engine takes a dead worker's jobs; called until the dead one's row is gone.
        list_owners: the workers that the engine believes to have jobs in their hands.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        worker_id: str,
        device: str,
        lease_s: float,
        beat_s: float,
        take_over: Callable[[WorkerRecord], None],
        list_owners: Callable[[], set[str]],
    ) -> None:
        self._catalog = catalog
        self._worker_id = worker_id
        self._device = device
        self._lease_s = lease_s
        self._beat_s = beat_s
        self._watch_s = min(beat_s, _LONGEST_WATCH_S)
        self._take_over = take_over
        self._list_owners = list_owners
        self._stopped = Event()
        self._threads = [
            Thread(target=self._keep_beating, name="condu-beat", daemon=True),
            Thread(target=self._keep_watching, name="condu-watch", daemon=True),
        ]

    def start(self) -> None:
        """Signs the worker on; from now on it beats and watches."""
        self._register()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends the threads; the worker's row stays until the engine signs it off."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _register(self) -> None:
        with self._catalog.transaction() as session:
            register_worker(session, self._worker_id, device=self._device, lease_s=self._lease_s)

    def _keep_beating(self) -> None:
        while not self._stopped.wait(self._beat_s):
            try:
                self._beat()
            except Exception:  # noqa: BLE001 - a worker that no longer beats is dead to the others
                _log.exception("worker %s could not beat", self._worker_id)

    def _beat(self) -> None:
        with self._catalog.transaction() as session:
            is_held = beat(session, self._worker_id, lease_s=self._lease_s)
        if not is_held:
            # Stopped past the lease and continued. Its jobs are others' now and fenced; the next are its own.
            _log.warning("worker %s was taken for dead and signs on again", self._worker_id)
            self._register()

    def _keep_watching(self) -> None:
        passes_between_searches = max(1, round(self._lease_s / self._watch_s))
        passes = 0
        while not self._stopped.wait(self._watch_s):
            passes += 1
            try:
                if passes % passes_between_searches == 0:
                    self._search_orphans()
                self._bury_the_dead()
            except Exception:  # noqa: BLE001 - the dead must be looked after, whatever it met
                _log.exception("worker %s could not look after the others", self._worker_id)

    def _bury_the_dead(self) -> None:
        with self._catalog.snapshot() as session:
            workers = list_workers(session)
        for worker in workers:
            if worker.worker_id != self._worker_id and is_dead(worker):
                _log.warning("worker %s (pid %d on %s) is dead", worker.worker_id, worker.pid, worker.host)
                self._take_over(worker)

    def _search_orphans(self) -> None:
        """Finds jobs in the hands of a worker without a row: it was taken for dead, woke up, and died."""
        owners = self._list_owners()
        with self._catalog.snapshot() as session:
            known = {worker.worker_id for worker in list_workers(session)}
        for owner in owners - known - {self._worker_id}:
            try:
                with self._catalog.transaction() as session:
                    register_dead_worker(session, owner)
            except IntegrityError:
                _log.debug("another worker has found the orphans of %s already", owner)
