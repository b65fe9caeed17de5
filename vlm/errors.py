"""What can go wrong with a CLIP, one class per thing a caller can do differently.

VlmError
├── UnknownArchitectureError      the architecture cannot be built here: unknown name, or an impossible config
├── UnknownPretrainedError        no such published weights for the architecture (names those there are)
├── PretrainedUnavailableError    published weights could not be fetched; may be retried
├── ImageRejectedError            one image cannot be used (says why); the others of a request can
├── InvalidLabelsError            no labels, too many, or what is no label
├── InvalidTemplatesError         no templates, too many, or one without exactly one {}
├── InvalidOptionsError           a prediction option that cannot be met
├── NoLabelsError                 neither the request nor the model says among what to choose
└── InvalidPrototypesError        stored bytes are not a prototype set
"""

from typing import Literal

Reason = Literal["empty", "not_an_image", "too_large", "broken"]


class VlmError(Exception):
    """A failure of the vision-language side; the message names the thing and the remedy."""


class UnknownArchitectureError(VlmError):
    """An architecture that open_clip does not know, or that cannot be built without the network."""


class UnknownPretrainedError(VlmError):
    """A tag under which open_clip publishes no weights for this architecture."""


class PretrainedUnavailableError(VlmError):
    """Published weights that could not be fetched or read; the same call may succeed later."""


class ImageRejectedError(VlmError):
    """An image that is not decoded.

    Attributes:
        reason: What is wrong with it, as one stable word.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class InvalidLabelsError(VlmError):
    """A label set from which nothing can be chosen."""


class InvalidTemplatesError(VlmError):
    """Templates that do not make prompts."""


class InvalidOptionsError(VlmError):
    """A prediction option outside its range, or options that contradict each other."""


class NoLabelsError(VlmError):
    """No labels were given, no task was named, and the model has no task to take them from."""


class InvalidPrototypesError(VlmError):
    """Bytes that are not a prototype set of a version known here."""
