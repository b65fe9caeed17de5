"""`condu bench serving` in small: what it writes, and that its checks held; no time is judged."""

import json
import re
import statistics

import pytest
from typer.testing import CliRunner

from bench.serving import run
from bench.serving.report import serving_tables, write_report
from bench.serving.targets import targets
from cli.main import app
from tests.house.sources import ROOT


def test_the_document_has_the_numbers_that_were_promised(document):
    measured = document["serving"]

    assert measured["mixed_requests"] == measured["plan"]["mixed_requests"] == 60
    assert measured["wrong_answers"] == 0
    assert set(measured["ratio_to"]["open-clip"]) == {"1", "4"}
    assert isinstance(measured["rss_growth_100_to_1000"], float)
    assert isinstance(measured["hot_overhead_ms"], float)


def test_every_mixed_request_was_answered_and_checked_while_revisions_came_and_went(document):
    mixed = document["serving"]["mixed"]

    assert mixed["requests"] == sum(mixed["statuses"].values()) == 60
    assert mixed["revisions_published_meanwhile"] >= 2
    assert mixed["revisions_answered_from"] >= 2
    assert mixed["told_apart"] > 0.9
    assert mixed["largest_logit_difference"] < mixed["logit_tolerance"]


def test_experts_had_to_go_while_mixed_requests_were_answered(document):
    assert document["serving"]["mixed"]["evictions"] > 0


def test_weights_after_many_switches_are_the_stores(document):
    switching = document["serving"]["switching"]

    assert switching["evictions"] > 0
    assert switching["experts_that_differ_from_the_store"] == 0
    assert switching["rows"][-1]["switches"] == switching["switches"]


def test_ratios_are_those_of_rounds_of_the_same_run(document):
    measured = document["serving"]
    ours = measured["scenarios"]["one_expert"]["condu"]
    peer = measured["scenarios"]["one_expert"]["open-clip"]

    for callers, ratio in measured["ratio_to"]["open-clip"].items():
        rounds = zip(ours[callers]["rounds_per_s"], peer[callers]["rounds_per_s"], strict=True)
        assert ratio == statistics.median(mine / theirs for mine, theirs in rounds)


def test_nobody_who_was_measured_gave_an_error(document):
    rows = [
        row
        for participants in document["serving"]["scenarios"].values()
        for by_callers in participants.values()
        for row in by_callers.values()
    ]

    assert rows
    assert [row for row in rows if row["errors"] or not row["requests"]] == []
    assert all(row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] for row in rows)


def test_peers_compute_the_same_answers_but_for_how_they_decode(document):
    agreement = document["serving"]["agreement"]["open-clip"]

    assert agreement["same_label"] >= 0.8


def test_a_peer_is_measured_or_named_with_the_command_that_installs_it(document):
    peers = document["serving"]["peers"]

    assert set(peers) == {"open-clip", "litserve", "ray"}
    for told in peers.values():
        assert told["status"] == "measured" or told["install"].startswith("pip install ")


def test_the_page_documents_exactly_the_keys_that_are_written(document):
    page = (ROOT / "docs/serving-benchmark.md").read_text()

    assert set(re.findall(r"`serving\.(\w+)`", page)) == set(document["serving"])


def test_the_report_shows_every_table_and_figure(document, tmp_path):
    page, *figures = write_report(document, tmp_path, stem="serving")
    text = page.read_text()

    assert [table.title for table in serving_tables(document) if table.title not in text] == []
    assert [figure.name for figure in figures if f"({figure.name})" not in text] == []
    assert all(figure.stat().st_size > 1000 for figure in figures)


def test_a_promise_that_a_run_breaks_is_told(document):
    measured = json.loads(json.dumps(document["serving"]))
    measured |= {"wrong_answers": 1, "rss_growth_100_to_1000": 0.02, "hot_overhead_ms": 1.5}
    measured["ratio_to"] = {"open-clip": {"8": 0.99}}

    broken = {target.found for target in targets(measured) if not target.is_met}

    assert broken >= {"1 in 60", "+2.00%", "1.50 ms", "0.99 times"}


@pytest.fixture
def instead_of_running(monkeypatch, document):
    """What the command would measure is there already; returns what it was asked for."""
    asked = []

    def measured(base, plan, **options):
        asked.append((base, plan, options))
        return document

    monkeypatch.setattr(run, "run_serving", measured)
    return asked


def _command(*options):
    return CliRunner().invoke(app, ["bench", "serving", *options])


def test_the_command_measures_what_it_was_told_to_and_leaves_numbers_and_report(instead_of_running, tmp_path):
    path = tmp_path / "made" / "serving.json"
    chosen = ["--requests", "70", "--seconds", "0.5", "--rounds", "2", "--peers", "litserve", "--quick"]

    result = _command("--json", str(path), *chosen)

    assert result.exit_code == 0, result.output
    base, plan, options = instead_of_running[0]
    assert (base.name, base.is_made) == ("demo", False)
    assert (plan.mixed_requests, plan.seconds, plan.rounds) == (70, 0.5, 2)
    assert options["peers"].names == ["litserve"]
    assert json.loads(path.read_text())["benchmark"] == "serving"
    assert path.with_suffix(".md").is_file()
    assert "Mixed requests, each answer checked" in result.output


def test_the_command_fails_when_an_answer_was_wrong(instead_of_running, document, monkeypatch):
    wrong = json.loads(json.dumps(document))
    wrong["serving"]["wrong_answers"] = 2
    wrong["serving"]["mixed"]["examples"] = ["logits: off by 3"]
    monkeypatch.setattr(run, "run_serving", lambda *_, **__: wrong)

    result = _command()

    assert result.exit_code == 1
    assert "2 of 60 answers were wrong" in result.output
    assert "logits: off by 3" in result.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--peers", "open-clip,nobody"], "there is no peer 'nobody'"),
        (["--peer-python", "ray=/nowhere/python"], "no Python at '/nowhere/python'"),
        (["--base", "no-such-clip"], "no-such-clip"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is(options, words, instead_of_running):
    result = _command(*options)

    assert result.exit_code == 2
    assert words in result.output
    assert not instead_of_running
