"""How the engine is, as health, metrics and the dashboard see it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineStatus:
    """The engine at one moment.

    Attributes:
        is_alive: The device thread has not been silent for longer than it may.
        beat_age_s: Seconds since it last gave a sign of life; of a batch that runs, how long it has run.
        queued_images: Images of accepted requests that are not answered yet.
        max_queue: How many may be.
        loading: Experts that are being loaded.
        restarts: How often the device thread was started anew because it hung.
        is_overloaded: Nothing more is accepted.
    """

    is_alive: bool
    beat_age_s: float
    queued_images: int
    max_queue: int
    loading: int
    restarts: int
    is_overloaded: bool
