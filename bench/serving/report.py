"""A run's numbers as tables, on the terminal and as a Markdown page with its figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.serving.figures import draw_serving
from bench.serving.targets import targets
from bench.tables import Table, count_text, machine_line, size_text

WORDS = {
    "one_expert": "One expert, named by its task",
    "eight_mixed": "Experts of {experts} tasks in turn",
    "aggregation": "No task named: the base and up to four experts answer each image",
}


def serving_tables(document: Mapping[str, Any]) -> list[Table]:
    """What the terminal shows."""
    measured = document["serving"]
    return [
        _targets(measured),
        *(_scenario(measured, name) for name in measured["scenarios"]),
        _ratios(measured),
        _mixed(measured),
        _overhead(measured),
        _switching(measured),
    ]


def write_report(document: Mapping[str, Any], folder: Path, *, stem: str) -> list[Path]:
    """`STEM.md` in the folder, and the figures that it shows."""
    figures = draw_serving(document, folder, stem=stem)
    measured = document["serving"]
    base = measured["base"]
    made = "random weights" if base["is_made"] else "trained weights"
    where = f"Measured on {machine_line(document)}"
    what = (
        f"Base {base['name']}, {count_text(base['parameters'])} parameters, {made}; "
        f"{measured['plan']['num_experts']} made experts; JPEGs of 640 x 480 pixels, "
        f"{size_text(base['photograph_bytes'])} on average; seed {document['seed']}."
    )
    busy = f"Load average at the start: {document['machine']['load_average']:.1f}."
    lines = ["# condu bench serving", "", f"{where}. {busy}", "", what, ""]
    if document["quick"]:
        lines += ["`--quick`: these sizes are too small for their times to mean anything.", ""]
    for table in serving_tables(document):
        lines += [f"**{table.title}**", "", *_markdown(table), ""]
    for figure in figures:
        lines += [f"![{figure.stem.rpartition('.')[2]}]({figure.name})", ""]
    page = folder / f"{stem}.md"
    page.write_text("\n".join(lines))
    return [page, *figures]


def _targets(measured: Mapping[str, Any]) -> Table:
    rows = [(each.says, each.found, "yes" if each.is_met else "NO") for each in targets(measured)]
    return Table("What is promised", ("promise", "found", "kept"), rows)


def _scenario(measured: Mapping[str, Any], name: str) -> Table:
    rows = [
        (who, callers, f"{row['images_per_s']:.1f}",
         *(f"{row[f'p{share}_ms']:.1f}" for share in (50, 95, 99)),
         str(row["requests"]), str(row["errors"]), size_text(row["resident_bytes"]))
        for who, by_callers in measured["scenarios"][name].items()
        for callers, row in by_callers.items()
    ]  # fmt: skip
    headings = ("who", "callers", "images/s", "p50 ms", "p95 ms", "p99 ms", "requests", "errors", "memory")
    return Table(WORDS[name].format(experts=measured["plan"]["num_experts"]), headings, rows)


def _ratios(measured: Mapping[str, Any]) -> Table:
    kinds = {"one expert": measured["ratio_to"], "mixed": measured["mixed_ratio_to"]}
    rows = [
        (f"{name}, {kind}", *(f"{ratio:.2f}" for ratio in by_callers.values()))
        for kind, ratios in kinds.items()
        for name, by_callers in ratios.items()
    ]
    half = measured["half_cache_mixed_to_one_expert"]
    rows.append(("ours mixed, half in memory, to one expert", *(f"{ratio:.2f}" for ratio in half.values())))
    rows += [
        (f"{name}: {told['status']}, {told['install']}", *("" for _ in half))
        for name, told in measured["peers"].items()
        if "install" in told
    ]
    return Table("Images/s of the service over the peer's", ("to", *(f"{n} callers" for n in half)), rows)


def _mixed(measured: Mapping[str, Any]) -> Table:
    mixed = measured["mixed"]
    evictions = "not told" if mixed["evictions"] is None else f"{mixed['evictions']:.0f}"
    rows = [
        ("requests, images", f"{mixed['requests']:,}, {mixed['images']:,}"),
        ("callers", str(mixed["concurrency"])),
        ("wrong answers", str(mixed["wrong_answers"])),
        ("largest difference of a logit", f"{mixed['largest_logit_difference']:.1e}"),
        ("answers of two experts that the check tells apart", f"{mixed['told_apart']:.1%}"),
        ("revisions published meanwhile", str(mixed["revisions_published_meanwhile"])),
        ("revisions answered from", str(mixed["revisions_answered_from"])),
        ("refused while their task was not there", str(mixed["refused_while_the_task_was_not_there"])),
        ("experts evicted", evictions),
        ("requests/s", f"{mixed['requests_per_s']:.1f}"),
        ("p50, p95, p99 ms", ", ".join(f"{mixed[f'p{share}_ms']:.0f}" for share in (50, 95, 99))),
        ("memory", size_text(mixed["resident_bytes"])),
    ]
    return Table("Mixed requests, each answer checked", ("what", "found"), rows)


def _overhead(measured: Mapping[str, Any]) -> Table:
    words = {
        "open_clip_ms": "open_clip's encode_image and logits",
        "forward_ms": "the same as the engine runs it",
        "engine_ms": "the engine, asked and answered",
        "decode_ms": "decoding and preprocessing, one thread",
        "engine_and_decode_ms": "decoding, then the engine",
    }
    rows = [
        (f"{text}, ms", *(f"{row[name]:.2f}" for row in measured["overhead"].values()))
        for name, text in words.items()
    ]
    shares = {
        "overhead_ratio": "added to the forward",
        "overhead_ratio_to_open_clip": "added to open_clip's",
        "overhead_ratio_with_decode": "added to decoding and forward",
    }
    rows += [
        (text, *(f"{row[name]:+.1%}" for row in measured["overhead"].values()))
        for name, text in shares.items()
    ]
    headings = ("medians", *(f"batch {batch}" for batch in measured["overhead"]))
    return Table("A hot expert, in one process", headings, rows)


def _switching(measured: Mapping[str, Any]) -> Table:
    found = measured["switching"]
    rows = [
        (f"{row['switches']:,}", size_text(row["resident_bytes"]), size_text(row["anonymous_bytes"]))
        for row in found["rows"]
    ]
    differ = found["experts_that_differ_from_the_store"]
    title = (
        f"Resident memory by switches of experts ({found['experts_kept']} of {found['experts']} fit; "
        f"experts that differ from the store at the end: {differ})"
    )
    return Table(title, ("switches", "resident", "of it anonymous"), rows)


def _markdown(table: Table) -> Sequence[str]:
    rule = ["---", *("---:" for _ in table.headings[1:])]
    return ["| " + " | ".join(row) + " |" for row in (table.headings, tuple(rule), *table.rows)]
