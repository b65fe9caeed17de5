"""What the device thread does with a batch: pictures, halved where memory is short, or prompts."""

from collections.abc import Callable, Sequence

import structlog
import torch
from torch import Tensor

from serving.errors import DeviceMemoryError
from serving.work import ImageBatch, TextBatch
from vlm.class_weights import Classifier, finish_class_weights
from vlm.experts import Expert

log = structlog.stdlib.get_logger("condu.serving")

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""PyTorch tells so in words only, in other ones for each device."""

Outcome = list[Tensor | Exception]
"""Per part of a batch, its rows or why it has none."""


def run_images(expert: Expert, batch: ImageBatch, *, on_limit: Callable[[int], None]) -> Outcome:
    """The image features of every part; a part that fails does not take the others with it.

    Args:
        expert: The batch's, leased.
        batch: What to run.
        on_limit: Called with the number of pictures that still fit, where the whole batch did not.
    """
    pictures = [picture for job, start, stop in batch.parts for picture in job.pictures[start:stop]]
    sizes = [stop - start for _, start, stop in batch.parts]
    try:
        return list(torch.split(_features(expert, pictures, on_limit), sizes))
    except Exception as error:
        if len(batch.parts) == 1:
            log.warning("a request could not be computed", expert=expert.digest, exc_info=error)
            return [error]
    log.warning("a batch failed; its requests are run one by one", requests=len(batch.parts))
    return [
        result
        for part in batch.parts
        for result in run_images(expert, ImageBatch(batch.who, (part,)), on_limit=on_limit)
    ]


def run_prompts(expert: Expert, batch: TextBatch) -> None:
    """Encode the classifier's next prompts; with the last ones, `made` is set."""
    job = batch.job
    job.means.step(expert.model, expert.tokenizer)
    if job.means.num_left == 0:
        job.made = Classifier.of(expert.model, finish_class_weights(job.means))


def _features(expert: Expert, pictures: Sequence[Tensor], on_limit: Callable[[int], None]) -> Tensor:
    try:
        return expert.image_features(torch.stack(list(pictures)))
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        if len(pictures) == 1:
            raise DeviceMemoryError(
                "the device has no memory for one image: lower CONDU_EXPERT_CACHE_BYTES, or use a device "
                f"with more memory ({str(error)[:200]})"
            ) from error
    # Halved outside of the handler: the error holds the frames, and with them the memory, of the attempt.
    half = (len(pictures) + 1) // 2
    log.warning("the device's memory is too small for the batch; halving it", pictures=len(pictures))
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    on_limit(half)
    return torch.cat(
        [_features(expert, pictures[:half], on_limit), _features(expert, pictures[half:], on_limit)]
    )


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return any(words in str(error).lower() for words in OUT_OF_MEMORY)
