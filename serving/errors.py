"""What can go wrong between a request and its answer.

ServingError
├── OverloadedError          the queue is full, or the service is stopping; may be retried
├── DeadlineExceededError    the answer did not come in time
├── DeviceStuckError         the device hung on this request's batch and was given up
└── DeviceMemoryError        not even one image fits into the device's memory
"""


class ServingError(Exception):
    """A request that was understood and could not be answered."""


class OverloadedError(ServingError):
    """More waits than may wait.

    Attributes:
        headers: Retry-After in seconds: how long what waits now takes at the rate of the last batches.
    """

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.headers = {"Retry-After": str(retry_after_s)}


class DeadlineExceededError(ServingError):
    """The time that the request had is over; what was left of it was not computed."""


class DeviceStuckError(ServingError):
    """The device did not come back from the batch that held this request; it was started anew without it."""


class DeviceMemoryError(ServingError):
    """The device has no memory for a single image."""
