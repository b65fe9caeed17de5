"""Workers and their leases: who is alive, by the database's clock, and who takes over from the dead."""

import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from catalog.changes import count_changes
from catalog.clock import age_s, now
from catalog.records import to_record
from catalog.tables import WorkerRow


@dataclass(frozen=True)
class WorkerRecord:
    """A worker process; it is alive while its last beat is younger than its lease."""

    worker_id: str
    host: str
    pid: int
    process: str
    device: str
    started_at: datetime
    beat_at: datetime
    lease_s: float
    is_alive: bool


def list_workers(session: Session) -> list[WorkerRecord]:
    """All workers that did not sign off, oldest first; the dead among them until someone takes over."""
    is_alive = (age_s(WorkerRow.beat_at) < WorkerRow.lease_s).label("is_alive")
    query = select(WorkerRow, is_alive).order_by(WorkerRow.started_at, WorkerRow.worker_id)
    return [to_record(WorkerRecord, row, {"is_alive": bool(alive)}) for row, alive in session.execute(query)]


def register_worker(session: Session, worker_id: str, *, device: str, lease_s: float) -> None:
    """Signs this process on as a worker."""
    session.add(
        WorkerRow(
            worker_id=worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            process=describe_process(os.getpid()) or "",
            device=device,
            lease_s=lease_s,
        )
    )
    session.flush()


def register_dead_worker(session: Session, worker_id: str) -> None:
    """Signs on, as dead since 1970, a worker that left jobs but no row, so that they are taken over."""
    dead_since = datetime.fromtimestamp(0, UTC)
    session.add(
        WorkerRow(
            worker_id=worker_id,
            host="",
            pid=0,
            process="",
            device="",
            started_at=dead_since,
            beat_at=dead_since,
            lease_s=0.0,
        )
    )
    session.flush()


def beat(session: Session, worker_id: str, *, lease_s: float) -> bool:
    """Whether the lease was held on to; False: the worker was taken for dead and its jobs were given away."""
    ours = update(WorkerRow).where(WorkerRow.worker_id == worker_id)
    return count_changes(session, ours.values(beat_at=now(), lease_s=lease_s)) == 1


def sign_off(session: Session, worker: WorkerRecord) -> bool:
    """Whether the worker's row was there, unchanged since it was read, and is now gone.

    Of several that try only one gets True, and not even that one if the worker has beaten in between: whoever
    gets it takes over the worker's jobs, in the same transaction.
    """
    unchanged = delete(WorkerRow).where(
        WorkerRow.worker_id == worker.worker_id, WorkerRow.beat_at == worker.beat_at
    )
    return count_changes(session, unchanged) == 1


def is_dead(worker: WorkerRecord) -> bool:
    """Whether the worker is dead: its lease ran out, or its process is gone from this very machine."""
    return not worker.is_alive or _is_gone_here(worker)


def _is_gone_here(worker: WorkerRecord) -> bool:
    here = describe_process(os.getpid())
    if not here or not worker.process or worker.host != socket.gethostname():
        return False
    if worker.process.rpartition(" ")[0] != here.rpartition(" ")[0]:
        return False  # another boot, or another container under the same name: its pids say nothing here
    return describe_process(worker.pid) != worker.process


def describe_process(pid: int) -> str | None:
    """Boot, pid namespace and start time of a living process, which no other ever has; None for a dead one.

    Also None where there is no /proc: leases still run out there, only not at once.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = Path("/proc/self/ns/pid").readlink()
        # Fields after the last parenthesis, for the command's name may contain anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return None
    state, start_ticks = fields[0], fields[19]
    return None if state in "ZX" else f"{boot} {namespace} {start_ticks}"
