"""What can go wrong between a request and its answer.

ServingError
├── UnknownTaskError         the revision that answers holds no such task
├── OverloadedError          the queue is full, or the service is stopping; may be retried
├── DeadlineExceededError    the answer did not come in time
├── DeviceStuckError         the device hung on this request's batch and was given up
└── DeviceMemoryError        not even one image fits into the device's memory
"""


class ServingError(Exception):
    """A request that was read and could not be answered."""


class UnknownTaskError(ServingError):
    """The revision that answers holds no such task."""

    def __init__(self, *, model: str, task: str, revision: int | None, known: tuple[str, ...]) -> None:
        where = (
            f"revision {revision} of model {model!r}"
            if revision
            else f"model {model!r}, which has learned nothing yet,"
        )
        super().__init__(f"{where} has no task {task!r}")
        self.known_tasks = known


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
