"""An expert as a file in the form that is asked for, its tensors in memory only while it is read."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from api.dependencies import Services
from store.experts import TensorFile
from store.manifest import Manifest
from vlm.bases import BaseRef
from vlm.merged_file import MergedExpertFile, merged_digest

Form = Literal["checkpoint", "adapter"]


@dataclass(frozen=True)
class Wanted:
    """A task's expert of a revision, in one form; `adapter` only where the base has one."""

    base: BaseRef
    manifest: Manifest
    task: str
    form: Form

    @property
    def is_merged(self) -> bool:
        """Whether the expert's adapter goes into the base's weights."""
        return self.base.adapter is not None and self.form == "checkpoint"

    @property
    def etag(self) -> str:
        """What the file is; costs no look at it."""
        if self.is_merged:
            return merged_digest(self.manifest, self.task)
        return self.manifest.expert_digest(self.task)


@contextmanager
def opened_expert(services: Services, wanted: Wanted) -> Iterator[TensorFile]:
    """The file, to be read while the context lasts.

    Raises:
        NotFoundError: A blob is gone.
        CorruptBlobError: Stored bytes are damaged.
    """
    store, pool = services.store, services.pool
    with pool.lease_base(wanted.base) as learned_on:
        if not wanted.is_merged:
            yield store.export(learned_on, wanted.manifest, wanted.task)
            return
        with pool.lease_base(replace(wanted.base, adapter=None)) as base:
            yield MergedExpertFile(
                store, wanted.base, base=base, adapter=learned_on, manifest=wanted.manifest, task=wanted.task
            )
