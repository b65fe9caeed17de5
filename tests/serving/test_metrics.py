import re
from dataclasses import replace
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from serving.metrics import Gauges, ServingMetrics
from serving.status import EngineStatus
from vlm.cache import CacheStats

STATUS = EngineStatus(
    is_alive=True, beat_age_s=0.5, queued_images=3, max_queue=10, loading=1, restarts=0, is_overloaded=False
)
STATS = CacheStats(
    entries=2, leased=1, size_bytes=200, leased_bytes=100, max_bytes=400, hits=7, misses=3, evictions=1
)
PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def watched(stored=lambda: ({"mask": 5, "base": 9}, 2, 4)):
    metrics = ServingMetrics()
    metrics.watch(Gauges(lambda: STATUS, lambda: STATS, lambda: replace(STATS, hits=70), stored))
    return metrics


def samples(metrics):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def test_what_was_told_is_counted():
    metrics = watched()
    metrics.request(model="animals", task="pets", outcome="answered", seconds=0.2)
    metrics.request(model="animals", task="pets", outcome="answered", seconds=0.4)
    metrics.batch("image", 4, forward_s=0.1, wait_s=[0.01, 0.02])
    metrics.batch("text", 0, forward_s=0.3, wait_s=[0.5])
    metrics.loaded(0.07)
    metrics.load_failed()
    metrics.dropped("deadline")
    metrics.restarted()
    found = samples(metrics)
    answered = (("model", "animals"), ("outcome", "answered"), ("task", "pets"))
    assert found["condu_requests_total", *answered] == 2
    assert found["condu_request_seconds_sum",] == 0.6000000000000001
    assert found["condu_batch_images_sum",] == 4
    assert found["condu_batch_images_count",] == 1
    assert found["condu_forward_seconds_count", ("kind", "text")] == 1
    assert found["condu_queue_wait_seconds_count",] == 3
    assert found["condu_expert_load_seconds_count",] == 1
    assert found["condu_expert_load_failures_total",] == 1
    assert found["condu_dropped_total", ("reason", "deadline")] == 1
    assert found["condu_device_restarts_total",] == 1


def test_what_other_parts_know_is_looked_up_when_asked():
    found = samples(watched())
    assert found["condu_queue_images",] == 3
    assert found["condu_queue_max_images",] == 10
    assert found["condu_experts_loading",] == 1
    assert found["condu_device_beat_age_seconds",] == 0.5
    assert found["condu_expert_cache_bytes",] == 200
    assert found["condu_expert_cache_hits_total",] == 7
    assert found["condu_class_weight_cache_hits_total",] == 70
    assert found["condu_stored_bytes", ("kind", "mask")] == 5
    assert (found["condu_models",], found["condu_tasks",]) == (2, 4)


def test_a_catalog_that_does_not_answer_leaves_the_rest_readable():
    found = samples(watched(stored=lambda: None))
    assert found["condu_queue_images",] == 3
    assert ("condu_models",) not in found


def test_every_metric_stands_in_the_operations_page_and_no_other():
    metrics = watched()
    named = set(re.findall(r"`(condu_[a-z_]+)[`{]", PAGE.read_text()))
    told = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in text_string_to_metric_families(metrics.text().decode())
        if not family.name.endswith("_created")
    }
    assert told == named
