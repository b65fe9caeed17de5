"""What is promised of a run under load, and its numbers as tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.serving.targets import Target
from bench.tables import Table, machine_line, size_text

P99_MS = 250.0
GROWTH = 0.05


def targets(measured: Mapping[str, Any]) -> list[Target]:
    """The promises, from the numbers under `load`."""
    broken = measured["server_errors"] + measured["refused_without_retry_after"]
    p99_ms, growth = measured["catalog_reads"]["p99_ms"], measured["memory"]["growth"]
    lost = measured["handles"]["leaked"]
    unexpected = measured["without_answer"] + measured["client_errors"]
    return [
        Target(
            "no 5xx but 503 with Retry-After",
            f"{broken} of {measured['requests']:,}; {measured['refused']:,} refused with 503",
            broken == 0,
        ),
        Target("every request is answered, and none with 4xx", f"{unexpected} were not", unexpected == 0),
        Target(f"p99 of catalog reads under {P99_MS:.0f} ms", f"{p99_ms:.0f} ms", p99_ms < P99_MS),
        Target(
            f"memory grows by less than {GROWTH:.0%} from the run's second quarter to its last",
            f"{growth:+.2%}",
            growth < GROWTH,
        ),
        Target(
            "no connection and no file stays open that was not before",
            ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in lost.items()) or "none",
            not lost,
        ),
    ]


def load_tables(document: Mapping[str, Any]) -> list[Table]:
    """What the terminal shows."""
    measured = document["load"]
    promised = [(each.says, each.found, "yes" if each.is_met else "NO") for each in targets(measured)]
    rows = [
        (
            kind,
            str(measured["clients"][kind]),
            f"{row['requests']:,}",
            *(f"{row[name]:.0f}" for name in ("p50_ms", "p95_ms", "p99_ms", "slowest_ms")),
            ", ".join(f"{status}: {count:,}" for status, count in measured["statuses"][kind].items()),
        )
        for kind, row in measured["kinds"].items()
    ]
    held = [
        (when, *(str(measured["handles"][when][name]) for name in measured["handles"][when]))
        for when in ("idle", "before", "after")
    ]
    memory = measured["memory"]
    plan = measured["plan"]
    return [
        Table("What is promised", ("promise", "found", "kept"), promised),
        Table(
            f"{plan['num_clients']} clients for {measured['elapsed_s']:.0f} s: "
            f"{measured['requests'] / measured['elapsed_s']:.0f} requests/s, "
            f"{size_text(measured['received_bytes'])} received, memory {size_text(memory['first_bytes'])} "
            f"to {size_text(memory['last_bytes'])}",
            ("kind", "clients", "requests", "p50 ms", "p95 ms", "p99 ms", "slowest ms", "answers"),
            rows,
        ),
        Table("Open", ("when", "sockets", "catalog's files", "other files", "threads"), held),
    ]


def write_report(document: Mapping[str, Any], folder: Path, *, stem: str) -> Path:
    """`STEM.md` in the folder."""
    busy = f"Load average at the start: {document['machine']['load_average']:.1f}."
    lines = ["# condu bench load", "", f"Measured on {machine_line(document)}. {busy}", ""]
    if document["quick"]:
        lines += ["`--quick`: these sizes are too small for their times to mean anything.", ""]
    for table in load_tables(document):
        rule = ("---", *("---:" for _ in table.headings[1:]))
        lines += [f"**{table.title}**", ""]
        lines += ["| " + " | ".join(row) + " |" for row in (table.headings, rule, *table.rows)]
        lines.append("")
    page = folder / f"{stem}.md"
    page.write_text("\n".join(lines))
    return page
