"""The tables of the catalog, as SQLAlchemy maps them; `migrations/` builds them.

Rows are named after what they hold with `Row` behind it, so that `BaseRow` (a pre-trained model's row) is not
taken for SQLAlchemy's declarative base. The rooms above see the frozen records of the other modules instead.
The job engine's own tables live in the same database and are no part of this metadata.
"""

from datetime import datetime
from typing import Annotated, Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from catalog.clock import UtcTime, now

# Constraints need names, or Alembic could never change them (SQLite's batch mode finds them by name).
NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


# More than the four bytes that an INTEGER has on PostgreSQL.
Large = Annotated[int, mapped_column(BigInteger)]


class CatalogTable(DeclarativeBase):
    """What every table of the catalog inherits."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        datetime: UtcTime(),
        dict[str, Any]: JSON(none_as_null=True),
        list[str]: JSON(none_as_null=True),
    }


class BlobRow(CatalogTable):
    """A blob that some row names: what it is and how large; the bytes are in the store."""

    __tablename__ = "blobs"

    digest: Mapped[str] = mapped_column(primary_key=True)
    size_bytes: Mapped[Large]
    kind: Mapped[str]
    # The API key whose request or job brought it first; no foreign key, for keys are never deleted.
    key_id: Mapped[str | None] = mapped_column(index=True)


class DoomedBlobRow(CatalogTable):
    """A blob that a sweep removes or has removed: catalog/doomed.py."""

    __tablename__ = "doomed_blobs"

    digest: Mapped[str] = mapped_column(primary_key=True)
    sweeper: Mapped[str]
    doomed_at: Mapped[datetime] = mapped_column(default=now())
    removed_at: Mapped[datetime | None]


class AllowedCodeRow(CatalogTable):
    """The one row that says how old code may be to use this schema: the schema it was written for."""

    __tablename__ = "allowed_code"

    oldest: Mapped[str] = mapped_column(primary_key=True)


class BaseRow(CatalogTable):
    """A pre-trained model."""

    __tablename__ = "bases"

    name: Mapped[str] = mapped_column(primary_key=True)
    architecture: Mapped[str | None]
    config: Mapped[dict[str, Any]]
    preprocessing: Mapped[dict[str, Any]]
    digest: Mapped[str]
    layout: Mapped[str]
    num_parameters: Mapped[Large]
    size_bytes: Mapped[Large]
    created_at: Mapped[datetime] = mapped_column(default=now())


class ModelRow(CatalogTable):
    """A named base plus all it has learned."""

    __tablename__ = "models"

    name: Mapped[str] = mapped_column(primary_key=True)
    base: Mapped[str] = mapped_column(ForeignKey("bases.name"), index=True)
    tuning: Mapped[str]
    # What all its adapters start from, a stored base; the three are null where the tuning is full.
    adapter: Mapped[str | None]
    lora_rank: Mapped[int | None]
    lora_seed: Mapped[Large | None]
    fusion: Mapped[str]
    rescaler_norm: Mapped[str]
    unified_dtype: Mapped[str]
    # No foreign key: revisions point at models already, and SQLite cannot add the second half of a circle.
    head_revision: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(default=now())
    key_id: Mapped[str | None]


class RevisionRow(CatalogTable):
    """The immutable state of a model after a fusion or a removal; never deleted while its model lives."""

    __tablename__ = "revisions"
    __table_args__ = (ForeignKeyConstraint(["model", "parent"], ["revisions.model", "revisions.number"]),)

    model: Mapped[str] = mapped_column(ForeignKey("models.name", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    parent: Mapped[int | None]
    manifest: Mapped[str]
    # Unique: a job publishes once, whatever happens to its worker.
    job_id: Mapped[str | None] = mapped_column(unique=True)
    cause: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now())
    expired_at: Mapped[datetime | None]


class TaskRow(CatalogTable):
    """A named set of classes that a model learned, once per learning."""

    __tablename__ = "tasks"
    __table_args__ = (UniqueConstraint("model", "name", "revision_learned"),)

    task_key: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(ForeignKey("models.name", ondelete="CASCADE"))
    name: Mapped[str]
    revision_learned: Mapped[int]
    classes: Mapped[list[str]]
    templates: Mapped[list[str]]
    l1_norm: Mapped[float]
    num_train: Mapped[int]
    num_test: Mapped[int]
    images_skipped: Mapped[int]
    accuracy_individual: Mapped[float | None]
    accuracy_expert: Mapped[float | None]
    accuracy_base: Mapped[float | None]
    dataset: Mapped[str | None]
    checkpoint: Mapped[str | None]
    training: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(default=now())


class TriggerRow(CatalogTable):
    """What a task is in one revision: its mask and rescaler, how faithful and how good its expert is."""

    __tablename__ = "triggers"
    __table_args__ = (
        ForeignKeyConstraint(
            ["model", "revision"], ["revisions.model", "revisions.number"], ondelete="CASCADE"
        ),
    )

    model: Mapped[str] = mapped_column(primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    task_key: Mapped[int] = mapped_column(ForeignKey("tasks.task_key", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int]
    mask: Mapped[str]
    size_bytes: Mapped[Large]
    rescaler: Mapped[float]
    density: Mapped[float]
    bits_cleared: Mapped[Large]
    relative_l2: Mapped[float]
    cosine: Mapped[float]
    reference: Mapped[str]
    # Known where the worker had held-out images when the revision was made; else `unmeasured` says why not.
    accuracy: Mapped[float | None]
    routing: Mapped[dict[str, Any] | None]
    unmeasured: Mapped[str | None]


class PrototypeRow(CatalogTable):
    """The prototypes of a learned task."""

    __tablename__ = "prototypes"

    task_key: Mapped[int] = mapped_column(ForeignKey("tasks.task_key", ondelete="CASCADE"), primary_key=True)
    digest: Mapped[str]
    size_bytes: Mapped[Large]


class DatasetRow(CatalogTable):
    """An uploaded archive of images; the row outlives the bytes, which go once they are used."""

    __tablename__ = "datasets"

    digest: Mapped[str] = mapped_column(primary_key=True)
    format: Mapped[str]
    classes: Mapped[list[str]]
    num_images: Mapped[int]
    size_bytes: Mapped[Large]
    created_at: Mapped[datetime] = mapped_column(default=now())
    is_kept: Mapped[bool] = mapped_column(default=False)
    released_at: Mapped[datetime | None]
    key_id: Mapped[str | None]


class JobRow(CatalogTable):
    """Something that takes long: one task to be learned."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint("state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="state"),
        Index(None, "model", "created_at"),
        Index(None, "state", "worker"),
    )

    job_id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    model: Mapped[str]
    task: Mapped[str]
    state: Mapped[str] = mapped_column(default="queued")
    # The fence: one more at every start, never less. A start that a stopping worker gave back is in
    # num_releases, so that it does not count against the cap.
    attempt: Mapped[int] = mapped_column(default=0)
    num_releases: Mapped[int] = mapped_column(default=0)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    worker: Mapped[str | None]
    request: Mapped[dict[str, Any]]
    dataset: Mapped[str | None]
    checkpoint: Mapped[str | None]
    progress: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(default=now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    # On whose behalf and by which request it was submitted: the worker's log names them.
    key_id: Mapped[str | None]
    request_id: Mapped[str | None]


class JobEventRow(CatalogTable):
    """Something that a job said; `seq` counts from 1 within a job and is what a follower resumes at."""

    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(default=now())
    kind: Mapped[str]
    body: Mapped[dict[str, Any]]


class WorkerRow(CatalogTable):
    """A worker process and its lease; one row a process start, gone when the worker is."""

    __tablename__ = "workers"

    worker_id: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    # A pid is used again by others; this is not. See workers.describe_process.
    process: Mapped[str]
    device: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(default=now())
    beat_at: Mapped[datetime] = mapped_column(default=now())
    lease_s: Mapped[float]


class ApiKeyRow(CatalogTable):
    """An API key: a keyed hash of it, what it may do and until when; revoked ones stay, for the audit."""

    __tablename__ = "api_keys"
    __table_args__ = (CheckConstraint("role IN ('read', 'submit', 'admin')", name="role"),)

    key_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    digest: Mapped[str]
    pepper: Mapped[str]
    role: Mapped[str]
    models: Mapped[list[str] | None]
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    requests_per_minute: Mapped[int | None]
    max_body_bytes: Mapped[Large | None]
    max_jobs: Mapped[int | None]
    max_models: Mapped[int | None]
    max_stored_bytes: Mapped[Large | None]


class SessionRow(CatalogTable):
    """A browser that signed in with a key; the digest is of the cookie's token."""

    __tablename__ = "sessions"

    digest: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.key_id", ondelete="CASCADE"))
    expires_at: Mapped[datetime]


class AuditRow(CatalogTable):
    """A change: who made it, what it was, when and from where; written with it, never changed."""

    __tablename__ = "audit"
    __table_args__ = (Index(None, "key_id", "entry"),)

    entry: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(default=now())
    who: Mapped[str]
    key_id: Mapped[str | None]
    action: Mapped[str]
    subject: Mapped[str]
    facts: Mapped[dict[str, Any]]
    address: Mapped[str | None]
    request_id: Mapped[str | None]
