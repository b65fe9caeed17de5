"""What the service counts, as Prometheus reads it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.status import EngineStatus
from vlm.cache import CacheStats

DropReason = Literal["cancelled", "deadline", "overloaded", "stuck", "memory"]
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Gauges:
    """What is looked up when somebody asks, instead of being counted along the way.

    Attributes:
        stored: Bytes of blobs by kind, and how many models and tasks there are; None where the catalog does
            not answer.
    """

    engine: Callable[[], EngineStatus]
    experts: Callable[[], CacheStats]
    class_weights: Callable[[], CacheStats]
    stored: Callable[[], tuple[dict[str, int], int, int] | None]


class ServingMetrics:
    """All metrics of one service. Thread-safe.

    Args:
        registry: Where they are registered; by default, one of their own.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self._requests = Counter(
            "condu_requests",
            "Classify requests by what became of them; task is empty where none was named.",
            ["model", "task", "outcome"],
            registry=self.registry,
        )
        self._request_s = self._seconds(
            "condu_request_seconds", "From the first byte of a classify request to its answer."
        )
        self._wait_s = self._seconds("condu_queue_wait_seconds", "What work waited for the device.")
        self._batch = Histogram(
            "condu_batch_images", "Images that ran at once.", buckets=SIZES, registry=self.registry
        )
        self._forward_s = self._seconds(
            "condu_forward_seconds", "What batches took on the device, by kind (image or text).", ["kind"]
        )
        self._load_s = self._seconds(
            "condu_expert_load_seconds",
            "What it took to bring an expert into memory: reading and rebuilding.",
        )
        self._load_failures = self._count(
            "condu_expert_load_failures", "Experts that could not be brought into memory."
        )
        self._dropped = self._count(
            "condu_dropped",
            "Requests that got no answer: cancelled, deadline, overloaded, stuck, memory.",
            ["reason"],
        )
        self._restarts = self._count(
            "condu_device_restarts", "How often the device hung and was started anew."
        )

    def request(self, *, model: str, task: str, outcome: str, seconds: float) -> None:
        """A classify request has ended; names that nobody registered are to come as empty ones."""
        self._requests.labels(model, task, outcome).inc()
        self._request_s.observe(seconds)

    def batch(
        self, kind: Literal["image", "text"], size: int, *, forward_s: float, wait_s: Sequence[float]
    ) -> None:
        """A batch of so many images has run; prompts of class weights are of kind `text`."""
        if kind == "image":
            self._batch.observe(size)
        self._forward_s.labels(kind).observe(forward_s)
        for seconds in wait_s:
            self._wait_s.observe(seconds)

    def loaded(self, seconds: float) -> None:
        """An expert came into memory."""
        self._load_s.observe(seconds)

    def load_failed(self) -> None:
        """An expert could not be brought into memory."""
        self._load_failures.inc()

    def dropped(self, reason: DropReason) -> None:
        """A request got no answer."""
        self._dropped.labels(reason).inc()

    def restarted(self) -> None:
        """The device hung and was started anew."""
        self._restarts.inc()

    def watch(self, gauges: Gauges) -> None:
        """Add what is looked up at each reading; to be called once."""
        self.registry.register(_Looked(gauges))

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)

    def _seconds(self, name: str, words: str, labels: Sequence[str] = ()) -> Histogram:
        return Histogram(name, words, labels, buckets=SECONDS, registry=self.registry)

    def _count(self, name: str, words: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(name, words, labels, registry=self.registry)


class _Looked(Collector):
    """Gauges and counters that other parts keep."""

    def __init__(self, gauges: Gauges) -> None:
        self._gauges = gauges

    def describe(self) -> Iterable[Metric]:
        """Nothing: what would have to be looked up to be described."""
        return []

    def collect(self) -> Iterator[Metric]:
        engine = self._gauges.engine()
        yield _gauge(
            "condu_queue_images", "Images of accepted requests, not answered yet.", engine.queued_images
        )
        yield _gauge("condu_queue_max_images", "How many may be.", engine.max_queue)
        yield _gauge("condu_experts_loading", "Experts on their way into memory.", engine.loading)
        yield _gauge(
            "condu_device_beat_age_seconds", "Since the device thread's last sign of life.", engine.beat_age_s
        )
        yield from _cache(
            "condu_expert_cache", "experts, bases and unified deltas in memory", self._gauges.experts()
        )
        yield from _cache("condu_class_weight_cache", "class weights in memory", self._gauges.class_weights())
        stored = self._gauges.stored()
        if stored is None:
            return
        by_kind, num_models, num_tasks = stored
        blobs = GaugeMetricFamily("condu_stored_bytes", "Bytes of blobs, by what they hold.", labels=["kind"])
        for kind, size_bytes in sorted(by_kind.items()):
            blobs.add_metric([kind], size_bytes)
        yield blobs
        yield _gauge("condu_models", "Models.", num_models)
        yield _gauge("condu_tasks", "Tasks that heads serve.", num_tasks)


def _gauge(name: str, words: str, number: float) -> Metric:
    return GaugeMetricFamily(name, words, value=number)


def _cache(name: str, what: str, stats: CacheStats) -> Iterator[Metric]:
    yield _gauge(f"{name}_bytes", f"Bytes of {what}.", stats.size_bytes)
    yield _gauge(f"{name}_max_bytes", f"Bound on the bytes of {what}.", stats.max_bytes)
    yield _gauge(f"{name}_entries", f"How many {what}.", stats.entries)
    yield _gauge(f"{name}_leased", f"Of {what}, those in use.", stats.leased)
    yield CounterMetricFamily(f"{name}_hits", f"Found among {what}.", value=stats.hits)
    yield CounterMetricFamily(f"{name}_misses", f"Not found among {what}.", value=stats.misses)
    yield CounterMetricFamily(f"{name}_evictions", f"Dropped from {what}.", value=stats.evictions)
