"""Experts on demand: rebuilt from the pristine base, kept while there is room, never changed while in use."""

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from store.bases import Base
from store.checkpoints import CheckpointStore
from store.errors import NotFoundError
from store.experts import UnifiedDelta
from store.manifest import Manifest
from vlm.adapters import merge_adapter
from vlm.bases import BaseRef
from vlm.cache import CacheStats, KeptValue, LeasedCache
from vlm.features import Precision, image_features
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
    precision: Precision = "float32"

    def image_features(self, pictures: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
        """Its image tower's features, computed in its precision."""
        return image_features(self.model, pictures, precision=self.precision)


@dataclass(frozen=True)
class CachedExpert:
    """Something that the pool keeps: an expert, a base, or a unified delta that experts are rebuilt from.

    Attributes:
        digest: Of its weights.
        leases: Who uses it now.
        idle_s: Seconds since it was last used.
    """

    kind: Literal["expert", "base", "unified delta"]
    digest: str
    size_bytes: int
    leases: int
    idle_s: float


@dataclass(frozen=True)
class _Loaded:
    """An entry of the cache: a base or an expert, each ready to answer, or a unified delta.

    Attributes:
        layout: Digest of the parameter space that `flat` is laid out by.
        num_views: Tensors that share the memory of `flat` while nobody outside keeps one.
    """

    flat: Tensor
    expert: Expert | None = None
    base: Base | None = None
    unified: UnifiedDelta | None = None
    layout: str = ""
    num_views: int = 0

    @property
    def is_let_go(self) -> bool:
        """Whether nobody has kept the model, or any of its tensors, beyond a lease."""
        assert self.expert is not None  # noqa: S101 - asked of experts alone
        # The model is known to the Expert here and to getrefcount; whoever else knows it has kept it.
        return sys.getrefcount(self.expert.model) <= 2 and _num_users(self.flat) <= self.num_views


class ExpertPool:
    """Bases and rebuilt experts within one bound in bytes. Thread-safe.

    An expert is one flat buffer of its own; a base's tensors and the newest unified delta are read by all.
    What is leased stays, even beyond the bound, and two threads that ask for one missing expert rebuild it
    once.

    Args:
        store: Where bases and revisions are kept.
        device: Where models answer; "auto" is CUDA where there is one.
        max_bytes: Bound on weights in memory, bases included.
        precision: Of image features; weights stay float32.
        is_compiled: Whether image towers go through torch.compile, where that works here.
    """

    def __init__(
        self,
        store: CheckpointStore,
        *,
        device: str | torch.device = "cpu",
        max_bytes: int = DEFAULT_MAX_BYTES,
        precision: Precision = "float32",
        is_compiled: bool = False,
    ) -> None:
        self.store = store
        self.device = resolve_device(device)
        self._precision: Precision = precision
        self._is_compiled = is_compiled
        if is_compiled:
            # Without a C++ compiler, or for a tower it cannot handle, the tower runs as it is.
            torch._dynamo.config.suppress_errors = True  # noqa: SLF001
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
        wanted = _name(base, manifest, task)
        if task is None or manifest is None:
            with self._leased(base) as loaded:
                yield cast("Expert", loaded.expert)
            return
        with self._cache.lease(wanted, lambda: self._rebuild(base, manifest, task)) as loaded:
            yield replace(cast("Expert", loaded.expert), task=task)

    @contextmanager
    def lease_if_here(
        self, base: BaseRef, manifest: Manifest | None, task: str | None
    ) -> Iterator[Expert | None]:
        """What `lease` gives if it is in memory, else None: nothing is read and nothing rebuilt."""
        with self._cache.lease_if_here(_name(base, manifest, task)) as loaded:
            yield None if loaded is None else replace(cast("Expert", loaded.expert), task=task)

    def has_room(self, base: BaseRef) -> bool:
        """Whether one more expert fits within the bound, once all that is not leased has gone.

        The base and the unified delta that it is rebuilt from are counted as if they were leased.
        """
        stats, kept = self._cache.stats(), self._cache.kept()
        flats = [entry for entry in kept if entry.name[0] == base.architecture.digest and _is_source(entry)]
        sources = sum(entry.size_bytes for entry in flats if not entry.leases)
        largest = max((entry.size_bytes for entry in flats), default=0)
        return stats.leased_bytes + sources + largest <= stats.max_bytes

    def drop_idle(self, idle_s: float) -> int:
        """Drop what nobody has used for so many seconds; tell how many experts and bases that were."""
        return self._cache.drop_idle(idle_s)

    def entries(self) -> tuple[CachedExpert, ...]:
        """What is in memory, the least recently used first."""
        return tuple(
            CachedExpert(_kind(entry.value), entry.name[1], entry.size_bytes, entry.leases, entry.idle_s)
            for entry in self._cache.kept()
        )

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
            spare = self._spare(ref, base)
            rebuilt = self.store.rebuild(
                base, manifest, task, unified=unified, out=None if spare is None else spare.flat
            )
            return self._loaded(
                ref,
                base,
                rebuilt.flat,
                buffers=rebuilt.buffers,
                digest=manifest.expert_digest(task),
                spare=spare,
            )

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
            spare = self._spare(ref, base)
            out = None if spare is None else spare.flat
            flat = merge_adapter(ref, base, adapter, flat=factors, out=out)
            return self._loaded(
                ref, base, flat, buffers=base.buffers, digest=manifest.expert_digest(task), spare=spare
            )

    def _spare(self, ref: BaseRef, base: Base) -> _Loaded | None:
        """An expert that had to go and that nobody has kept, whose memory and model can serve the next one.

        Rebuilding into memory that is already mapped takes a quarter of the time that fresh memory takes,
        and wiring a model of some hundred tensors takes longer than filling them.
        """
        for loaded in self._cache.make_room(_size_bytes(base.flat)):
            expert = loaded.expert
            is_alike = (
                loaded.base is None
                and expert is not None
                and expert.architecture_digest == ref.architecture.digest
                and loaded.layout == base.space.digest
            )
            del expert
            if is_alike and loaded.is_let_go:
                return loaded
        return None

    def _loaded(
        self,
        ref: BaseRef,
        base: Base,
        flat: Tensor,
        *,
        buffers: Mapping[str, Tensor],
        digest: str,
        spare: _Loaded | None,
    ) -> tuple[_Loaded, int]:
        """The entry of an expert whose weights are in `flat`: the memory of the spare, where there is one."""
        if spare is None or spare.expert is None:
            expert = self._expert(ref, base, flat=flat, buffers=buffers, digest=digest)
            made = _Loaded(flat, expert, layout=base.space.digest)
            return replace(made, num_views=_num_users(flat)), _size_bytes(flat)
        for name, tensor in self._buffers(base, buffers).items():
            owner, _, leaf = name.rpartition(".")
            setattr(spare.expert.model.get_submodule(owner), leaf, tensor)
        return replace(spare, expert=replace(spare.expert, digest=digest)), _size_bytes(flat)

    def _buffers(self, base: Base, buffers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        whole = {name: tensor.to(self.device, torch.float32) for name, tensor in buffers.items()}
        return {**whole, **{name: tensor.to(self.device) for name, tensor in base.fixed.items()}}

    def _expert(
        self, ref: BaseRef, base: Base, *, flat: Tensor, buffers: Mapping[str, Tensor], digest: str
    ) -> Expert:
        tensors = {**base.space.views(flat), **self._buffers(base, buffers)}
        model = ref.architecture.build(tensors).to(self.device)
        if self._is_compiled:
            model.get_submodule("visual").compile(dynamic=True)
        tokenizer = ref.architecture.tokenizer()
        return Expert(None, digest, model, tokenizer, ref.architecture.digest, self._precision)


def resolve_device(device: str | torch.device) -> torch.device:
    """The device itself; for "auto", CUDA where there is one, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def _name(base: BaseRef, manifest: Manifest | None, task: str | None) -> tuple[str, str]:
    """What an expert, or the base, is kept under: digests of its architecture and its weights."""
    if task is None:
        return base.architecture.digest, base.digest
    if manifest is None:
        raise NotFoundError(f"task {task!r}: the model has learned no task yet; name none to ask the base")
    if manifest.base != base.learned_on:
        raise ValueError(
            f"this revision was made on base {manifest.base}, not on {base.name!r} ({base.learned_on})"
        )
    return base.architecture.digest, manifest.expert_digest(task)


def _kind(loaded: _Loaded) -> Literal["expert", "base", "unified delta"]:
    if loaded.unified is not None:
        return "unified delta"
    return "expert" if loaded.base is None else "base"


def _is_source(entry: KeptValue[tuple[str, str], _Loaded]) -> bool:
    return _kind(entry.value) != "expert"


def _num_users(tensor: Tensor) -> int:
    """How many tensors and arrays share the memory; the storage that is asked here is one."""
    count: int = torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)  # noqa: SLF001
    return count


def _size_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
