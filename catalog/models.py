"""Models: a named base plus all it has learned."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from catalog.actors import owner_of, tell
from catalog.bases import find_base
from catalog.doomed import refuse_doomed
from catalog.errors import AlreadyExistsError, NoSuchRowError, StillInUseError
from catalog.names import check_name
from catalog.quotas import require_room
from catalog.records import to_record
from catalog.tables import JobRow, ModelRow, RevisionRow, TaskRow, TriggerRow


@dataclass(frozen=True)
class ModelRecord:
    """A model, the fixed properties of how it fuses, and its head (None before its first revision).

    Attributes:
        tuning: "full", or "lora" where it learns adapters.
        adapter: Digest of the stored base that its adapters start from; None with the next two where the
            tuning is full.
        lora_rank: Of the adapters.
        lora_seed: What their initialisation was drawn from.
    """

    name: str
    base: str
    tuning: str
    adapter: str | None
    lora_rank: int | None
    lora_seed: int | None
    fusion: str
    rescaler_norm: str
    unified_dtype: str
    head_revision: int | None
    created_at: datetime


@dataclass(frozen=True)
class NewAdapter:
    """What a model's adapters start from: digest of the stored base, and what it was made of."""

    digest: str
    rank: int
    seed: int


def create_model(
    session: Session,
    *,
    name: str,
    base: str,
    adapter: NewAdapter | None = None,
    fusion: str = "condu",
    rescaler_norm: str = "global_l1",
    unified_dtype: str = "float32",
) -> ModelRecord:
    """The new model, without revisions; which values the last three may take, the store and the api know.

    It learns adapters where it is given what they start from, else it is tuned in full.

    Raises:
        AlreadyExistsError: a model of that name exists.
        NoSuchRowError: there is no such base.
        InvalidNameError: it may not be called that.
        QuotaExceededError: the key in whose name it is made may have no more models.
    """
    check_model_free(session, name)
    if adapter is not None:
        refuse_doomed(session, [adapter.digest])
    find_base(session, base)
    require_room(session, models=1)
    tell(session, model=name, base=base)
    row = ModelRow(
        name=name,
        base=base,
        tuning="full" if adapter is None else "lora",
        adapter=None if adapter is None else adapter.digest,
        lora_rank=None if adapter is None else adapter.rank,
        lora_seed=None if adapter is None else adapter.seed,
        fusion=fusion,
        rescaler_norm=rescaler_norm,
        unified_dtype=unified_dtype,
        head_revision=None,
        key_id=owner_of(session),
    )
    session.add(row)
    session.flush()
    return to_record(ModelRecord, row)


def check_model_free(session: Session, name: str) -> None:
    """Nothing, when a model could be created under that name.

    Raises:
        AlreadyExistsError: a model of that name exists.
        InvalidNameError: it may not be called that.
    """
    check_name(name, "model")
    if session.get(ModelRow, name) is not None:
        raise AlreadyExistsError(f"model {name!r} exists already: choose another name, or delete it first")


def find_model(session: Session, name: str) -> ModelRecord:
    """The model of that name.

    Raises:
        NoSuchRowError: there is none.
    """
    row = session.get(ModelRow, name, populate_existing=True)
    if row is None:
        raise NoSuchRowError(f"there is no model {name!r}: `condu model list` shows those there are")
    return to_record(ModelRecord, row)


def list_models(session: Session, *, base: str | None = None) -> list[ModelRecord]:
    """All models, or those on one base, by name."""
    query = select(ModelRow).order_by(ModelRow.name)
    if base is not None:
        query = query.where(ModelRow.base == base)
    return [to_record(ModelRecord, row) for row in session.scalars(query)]


def delete_model(session: Session, name: str) -> None:
    """Forgets a model with its revisions and tasks; its jobs stay as history, its blobs until a sweep.

    Raises:
        NoSuchRowError: there is none of that name.
        StillInUseError: a job of it is queued or running.
    """
    find_model(session, name)
    unfinished = session.scalars(
        select(JobRow.job_id).where(JobRow.model == name, JobRow.state.in_(("queued", "running")))
    ).all()
    if unfinished:
        raise StillInUseError(
            f"model {name!r} has {len(unfinished)} unfinished jobs (the first is {unfinished[0]}): "
            "cancel them or wait for them first"
        )
    # Children first and by hand: revisions point at each other, which a cascade row by row would trip over.
    for table in (TriggerRow, TaskRow):
        session.execute(delete(table).where(table.model == name))
    session.execute(delete(RevisionRow).where(RevisionRow.model == name))
    session.execute(delete(ModelRow).where(ModelRow.name == name))
