"""`condu bench ... --quick`: the shape of what it writes, numbers that fit together; no time is judged."""

import re
from itertools import pairwise

import pytest

from bench.tables import tables
from store.codecs.floats import DTYPES
from tests.bench.conftest import BENCHMARKS
from tests.house.sources import ROOT

PAGE = (ROOT / "docs/benchmarks.md").read_text()
DOCUMENTED = re.findall(r"`((?:fusion|rebuild|storage)\.\w+)`", PAGE)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_document_tells_machine_commit_date_and_seed(name, quick):
    document, _ = quick(name)

    assert document["benchmark"] == name
    assert document["quick"] is True
    assert document["seed"] == 0
    assert document["machine"]["cores"] >= 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:+]+", document["machine"]["date"])
    assert {"cpu", "ram_bytes", "versions", "commit", "dirty"} <= document["machine"].keys()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_page_documents_exactly_the_keys_that_are_written(name, quick):
    document, _ = quick(name)

    assert {f"{name}.{key}" for key in document[name]} == {key for key in DOCUMENTED if key.startswith(name)}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_terminal_shows_every_table(name, quick):
    document, printed = quick(name)

    shown = " ".join(printed.split())

    assert [table.title for table in tables(document) if table.title not in shown] == []


def timings_of(value):
    if isinstance(value, dict):
        if "median_s" in value:
            yield value
        for inner in value.values():
            yield from timings_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from timings_of(inner)


@pytest.mark.parametrize("name", ["fusion", "rebuild"])
def test_every_median_comes_from_at_least_seven_times(name, quick):
    document, _ = quick(name)
    timings = list(timings_of(document))

    assert timings
    assert all(len(timing["times_s"]) >= 7 and min(timing["times_s"]) > 0 for timing in timings)
    assert all(min(timing["times_s"]) <= timing["median_s"] <= max(timing["times_s"]) for timing in timings)


def test_ratios_of_a_rebuild_are_those_of_its_own_times(quick):
    measured = quick("rebuild")[0]["rebuild"]
    medians = {name: timing["median_s"] for name, timing in measured["timings"].items()}
    cold = {name: timing["median_s"] for name, timing in measured["cold"]["timings"].items()}
    fastest = min(value for name, value in cold.items() if name.startswith("safetensors"))

    assert measured["ratio_to_add"] == medians["rebuild"] / medians["add"]
    assert measured["switch_ratio_to_add"] == medians["switch"] / medians["add"]
    assert measured["from_store_ratio_to_add"] == medians["from_store"] / medians["add"]
    assert measured["cold_speedup_vs_full_load"] == fastest / cold["from_store"]


def test_a_trigger_is_far_smaller_than_a_checkpoint_and_its_mask_neither_empty_nor_full(quick):
    measured = quick("rebuild")[0]["rebuild"]

    assert measured["cold"]["trigger_bytes"] < measured["cold"]["checkpoint_bytes"] / 20
    assert 0.3 < measured["mask_density"] < 0.9
    assert [row["parameters"] for row in measured["by_parameters"]] == sorted(
        row["parameters"] for row in measured["by_parameters"]
    )


def test_a_fusion_was_checked_against_the_textbook_at_every_size(quick):
    measured = quick("fusion")[0]["fusion"]
    rows = [*measured["by_tasks"].values(), *measured["by_parameters"]]

    assert all(row["checked"]["largest_rescaler_error"] < 1e-6 for row in rows)
    assert all(
        row["speedup_vs_textbook"]
        == row["timings"]["textbook"]["median_s"] / row["timings"]["fold"]["median_s"]
        for row in rows
    )


def test_memory_of_a_fusion_is_counted_over_the_delta(quick):
    measured = quick("fusion")[0]["fusion"]

    assert list(measured["memory"]) == list(measured["peak_extra_bytes"])
    for row in measured["memory"].values():
        assert row["peak_extra_bytes"] == row["peak_anonymous_bytes"] - row["delta_bytes"]
        assert row["delta_bytes"] == measured["model_bytes"]


def test_a_model_that_goes_on_learning_writes_more_with_every_task(quick):
    many = quick("fusion")[0]["fusion"]["thousand_tasks"]
    rows = many["by_tasks"]

    assert rows[-1]["tasks"] == many["tasks"]
    assert all(before["bytes_written"] < after["bytes_written"] for before, after in pairwise(rows))
    assert [row["blobs_written"] for row in rows] == [row["tasks"] + 3 for row in rows]


def test_every_dtype_is_weighed_at_every_number_of_tasks(quick):
    measured = quick("storage")[0]["storage"]

    assert list(measured["whole_ratio"]) == list(DTYPES)
    for dtype in DTYPES:
        row = measured["by_dtype"][dtype][-1]
        parts = ("base", "unified", "trigger", "prototype", "manifest")
        assert row["total_bytes"] == sum(row[f"{part}_bytes"] for part in parts)
        assert measured["whole_ratio"][dtype][str(row["tasks"])] == row["whole_ratio"]
        assert row["tasks"] * measured["full_checkpoint_bytes"] / row["total_bytes"] == row["whole_ratio"]


def test_made_deltas_agree_in_sign_as_often_as_published_ones(quick):
    density = quick("storage")[0]["storage"]["one_shot_density"]

    assert density["tasks"] < 8  # of fewer tasks more bits are set
    assert density["published"] < density["measured"] < 0.95


def test_a_peer_is_measured_or_named_with_the_command_that_installs_it(quick):
    peers = quick("storage")[0]["storage"]["peers"] | quick("rebuild")[0]["rebuild"]["peers"]

    for name in ("zipnn", "deltatensors"):
        assert peers[name].get("status") is None or peers[name]["install"].startswith(f"pip install {name}")
    assert peers["safetensors"]["whole_ratio"]["2"] == 1.0
