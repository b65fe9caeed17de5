"""An expert that was learned as an adapter, as a file that any code of the base loads."""

import hashlib
from collections.abc import Mapping
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from store.bases import Base
from store.checkpoints import CheckpointStore
from store.experts import TensorFile
from store.manifest import Manifest
from store.parameters import TensorSpec
from vlm.adapters import adapted_weights, merge_layer
from vlm.bases import BaseRef


def merged_digest(manifest: Manifest, task: str) -> str:
    """The identity of the merged file, from what its bytes depend on; costs no look at them."""
    return hashlib.sha256(f"merged/{manifest.expert_digest(task)}".encode()).hexdigest()


class MergedExpertFile(TensorFile):
    """The base's safetensors file with a task's adapter merged in, layer by layer while it is read.

    Args:
        store: Where the revision is.
        ref: The base and its adapter.
        base: The pre-trained model.
        adapter: The adapter's initialisation.
        manifest: The revision.
        task: The task's name.
    """

    def __init__(
        self,
        store: CheckpointStore,
        ref: BaseRef,
        *,
        base: Base,
        adapter: Base,
        manifest: Manifest,
        task: str,
    ) -> None:
        expert, etag = manifest.expert_digest(task), merged_digest(manifest, task)
        super().__init__(base, {**base.buffers, **base.fixed}, expert=expert, etag=etag)
        self._store, self._ref, self._adapter = store, ref, adapter
        self._manifest, self._task = manifest, task
        self._weights = base.space.views(base.flat)
        self._adapted = adapted_weights(adapter.space.views(adapter.flat))
        # One layer is kept: it is read in pieces.
        self._merged = lru_cache(maxsize=1)(self._merge)

    @cached_property
    def _factors(self) -> Mapping[str, Tensor]:
        rebuilt = self._store.rebuild(self._adapter, self._manifest, self._task)
        return self._adapter.space.views(rebuilt.flat)

    def _elements(self, spec: TensorSpec, first: int, count: int) -> np.ndarray:
        is_adapted = spec.name in self._adapted
        weight = self._merged(spec.name) if is_adapted else self._weights[spec.name]
        return weight.reshape(-1)[first : first + count].cpu().numpy()

    def _merge(self, name: str) -> Tensor:
        with torch.no_grad():
            return merge_layer(self._ref, self._weights, self._factors, layer=self._adapted[name])
