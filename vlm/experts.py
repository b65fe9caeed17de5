"""Experts on demand: rebuilt from the pristine base, kept while there is room, never changed while in use."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from store.bases import Base
from store.checkpoints import CheckpointStore
from store.errors import NotFoundError
from store.experts import UnifiedDelta
from store.manifest import Manifest
from vlm.adapters import merge_adapter
from vlm.bases import BaseRef
from vlm.cache import CacheStats, LeasedCache
from vlm.tokenizer import Tokenizer

DEFAULT_MAX_BYTES = 2 * 2**30

_LEAST_MODELS_WITH_UNIFIED = 4
"""Base, unified delta and two experts. Where fewer fit, a unified delta in memory would drive out the experts
that it is there to rebuild; its chunks are then read and decoded for each rebuild."""


@dataclass(frozen=True)
class Expert:
    """A model ready to answer, for as long as its lease lasts.

    Attributes:
        task: The task it was asked for under; None for the base itself.
        digest: What its weights are: equal digests are equal bits.
        model: In eval mode; to be run in inference mode, and never written to.
        tokenizer: Of its architecture.
        architecture_digest: Equal weights under two architectures are two different functions.
    """

    task: str | None
    digest: str
    model: nn.Module
    tokenizer: Tokenizer
    architecture_digest: str


@dataclass(frozen=True)
class _Loaded:
    """An entry of the cache: a base or an expert, each ready to answer, or a unified delta."""

    flat: Tensor
    expert: Expert | None = None
    base: Base | None = None
    unified: UnifiedDelta | None = None


class ExpertPool:
    """Bases and rebuilt experts within one bound in bytes. Thread-safe.

    An expert is one flat buffer of its own; a base's tensors and the newest unified delta are read by all.
    What is leased stays, even beyond the bound, and two threads that ask for one missing expert rebuild it
    once.

    Args:
        store: Where bases and revisions are kept.
        device: Where models answer; "auto" is CUDA where there is one.
        max_bytes: Bound on weights in memory, bases included.
    """

    def __init__(
        self,
        store: CheckpointStore,
        *,
        device: str | torch.device = "cpu",
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        self.store = store
        self.device = resolve_device(device)
        self._max_bytes = max_bytes
        self._cache: LeasedCache[tuple[str, str], _Loaded] = LeasedCache(max_bytes=max_bytes)
        # One rebuild at a time: each uses every core, and each needs a buffer of a model's size.
        self._rebuilding = threading.Lock()

    @contextmanager
    def lease(self, base: BaseRef, manifest: Manifest | None, task: str | None) -> Iterator[Expert]:
        """The expert of a task, or the base (`task` None), unchanged and in memory while the context lasts.

        Raises:
            NotFoundError: The revision has no such task, or a blob is gone.
            CorruptBlobError: Stored bytes are damaged.
        """
        if task is None:
            with self._leased(base) as loaded:
                yield cast("Expert", loaded.expert)
            return
        if manifest is None:
            raise NotFoundError(
                f"task {task!r}: the model has learned no task yet; name none to ask the base"
            )
        if manifest.base != base.learned_on:
            raise ValueError(
                f"this revision was made on base {manifest.base}, not on {base.name!r} ({base.learned_on})"
            )
        key = (base.architecture.digest, manifest.expert_digest(task))
        with self._cache.lease(key, lambda: self._rebuild(base, manifest, task)) as loaded:
            yield replace(cast("Expert", loaded.expert), task=task)

    @contextmanager
    def lease_base(self, base: BaseRef) -> Iterator[Base]:
        """The tensors that the model's deltas are taken from, in memory while the context lasts.

        They are the base's own, or the adapter's initialisation where the reference names one.
        """
        with self._leased(base) if base.adapter is None else self._leased_adapter(base) as loaded:
            # Under a base's key stands what _load_base or _load_adapter made.
            yield cast("Base", loaded.base)

    def stats(self) -> CacheStats:
        """What is in memory."""
        return self._cache.stats()

    def clear(self) -> None:
        """Drop all that is not leased."""
        self._cache.clear()

    def _leased(self, base: BaseRef) -> AbstractContextManager[_Loaded]:
        return self._cache.lease((base.architecture.digest, base.digest), lambda: self._load_base(base))

    def _leased_adapter(self, base: BaseRef) -> AbstractContextManager[_Loaded]:
        return self._cache.lease(
            (base.architecture.digest, base.learned_on), lambda: self._load_adapter(base.learned_on)
        )

    def _load_adapter(self, digest: str) -> tuple[_Loaded, int]:
        with torch.inference_mode(mode=False):
            base = self.store.load_base(digest)
            base = replace(base, flat=base.flat.to(self.device))
        return _Loaded(base.flat, base=base), _size_bytes(base.flat)

    def _load_base(self, ref: BaseRef) -> tuple[_Loaded, int]:
        # Weights outlive the request that loads them; made in its inference mode they would stay bound to it.
        with torch.inference_mode(mode=False):
            base = self.store.load_base(ref.digest)
            base = replace(base, flat=base.flat.to(self.device))
            expert = self._expert(ref, base, flat=base.flat, buffers=base.buffers, digest=ref.digest)
        return _Loaded(base.flat, expert, base), _size_bytes(base.flat)

    @contextmanager
    def _lease_unified(self, ref: BaseRef, base: Base, manifest: Manifest) -> Iterator[UnifiedDelta | None]:
        if self._max_bytes < _LEAST_MODELS_WITH_UNIFIED * _size_bytes(base.flat):
            yield None
            return

        def load() -> tuple[_Loaded, int]:
            unified = self.store.load_unified(base, manifest)
            return _Loaded(unified.flat, unified=unified), _size_bytes(unified.flat)

        with self._cache.lease((ref.architecture.digest, str(manifest.unified)), load) as loaded:
            yield cast("UnifiedDelta", loaded.unified)

    def _rebuild(self, ref: BaseRef, manifest: Manifest, task: str) -> tuple[_Loaded, int]:
        with self.lease_base(ref) as learned_on:
            if ref.adapter is None:
                return self._rebuild_whole(ref, learned_on, manifest, task=task)
            with self.lease_base(replace(ref, adapter=None)) as base:
                return self._rebuild_adapted(ref, base, learned_on, manifest=manifest, task=task)

    def _rebuild_whole(
        self, ref: BaseRef, base: Base, manifest: Manifest, *, task: str
    ) -> tuple[_Loaded, int]:
        with (
            self._rebuilding,
            torch.inference_mode(mode=False),
            self._lease_unified(ref, base, manifest) as unified,
        ):
            spare = self._spare_buffer(base.flat)
            rebuilt = self.store.rebuild(base, manifest, task, unified=unified, out=spare)
            digest = manifest.expert_digest(task)
            expert = self._expert(ref, base, flat=rebuilt.flat, buffers=rebuilt.buffers, digest=digest)
        return _Loaded(rebuilt.flat, expert), _size_bytes(rebuilt.flat)

    def _rebuild_adapted(
        self, ref: BaseRef, base: Base, adapter: Base, *, manifest: Manifest, task: str
    ) -> tuple[_Loaded, int]:
        """The expert as a plain model, its adapter merged, which answers at a plain model's speed."""
        with (
            self._rebuilding,
            torch.inference_mode(mode=False),
            self._lease_unified(ref, adapter, manifest) as unified,
        ):
            factors = self.store.rebuild(adapter, manifest, task, unified=unified).flat
            flat = merge_adapter(ref, base, adapter, flat=factors, out=self._spare_buffer(base.flat))
            digest = manifest.expert_digest(task)
            expert = self._expert(ref, base, flat=flat, buffers=base.buffers, digest=digest)
        return _Loaded(flat, expert), _size_bytes(flat)

    def _spare_buffer(self, like: Tensor) -> Tensor | None:
        """The buffer of an expert that had to go, if nobody has kept any of its tensors beyond the lease.

        Rebuilding into memory that is already mapped takes a quarter of the time that fresh memory takes.
        """
        dropped = self._cache.make_room(_size_bytes(like))
        flats = [loaded.flat for loaded in dropped if loaded.base is None]
        del dropped
        for flat in flats:
            if flat.shape == like.shape and flat.device == like.device and _is_the_only_view(flat):
                return flat
        return None

    def _expert(
        self, ref: BaseRef, base: Base, *, flat: Tensor, buffers: Mapping[str, Tensor], digest: str
    ) -> Expert:
        whole = {name: tensor.to(self.device, torch.float32) for name, tensor in buffers.items()}
        fixed = {name: tensor.to(self.device) for name, tensor in base.fixed.items()}
        model = ref.architecture.build({**base.space.views(flat), **whole, **fixed}).to(self.device)
        return Expert(None, digest, model, ref.architecture.tokenizer(), ref.architecture.digest)


def resolve_device(device: str | torch.device) -> torch.device:
    """The device itself; for "auto", CUDA where there is one, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def _is_the_only_view(tensor: Tensor) -> bool:
    """Whether no other tensor or array shares the memory; the tensor and the storage asked here are two."""
    num_users: int = torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)  # noqa: SLF001
    return num_users <= 2


def _size_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
