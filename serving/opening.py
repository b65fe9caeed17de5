"""The predictor of an installation, as its settings have it."""

from catalog import Settings
from store.checkpoints import CheckpointStore
from vlm.experts import ExpertPool
from vlm.prediction import Predictor


def open_predictor(settings: Settings, store: CheckpointStore) -> Predictor:
    """What answers on the installation's device, within its bounds of memory."""
    pool = ExpertPool(
        store,
        device=settings.device,
        max_bytes=settings.expert_cache_bytes,
        precision=settings.precision,
        is_compiled=settings.compile,
    )
    return Predictor(
        pool, class_weight_cache_bytes=settings.class_weight_cache_bytes, max_labels=settings.max_labels
    )
