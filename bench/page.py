"""Writes what was measured into docs/benchmarks.md, between its marks: `python -m bench.page FOLDER PAGE`."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.plots import BENCHMARK_OF, draw_all
from bench.tables import Table, machine_line, tables

START, END = "<!-- measured: start -->", "<!-- measured: end -->"
ORDER = ("rebuild", "fusion", "storage")
CAPTIONS = {
    "rebuild_by_parameters": "Rebuild against torch.add, by parameters",
    "fusion_by_tasks": "One fusion, by tasks",
    "fusion_by_parameters": "One fusion, by parameters",
    "memory_by_tasks": "Peak memory of a fusion, by tasks",
    "memory_by_parameters": "Peak memory of a fusion, by parameters",
    "many_tasks": "Time and bytes of a fusion, up to a thousand tasks",
    "whole_ratio": "Whole store against fp32 checkpoints, by tasks and stored dtype",
}


def update_page(folder: Path, page: Path) -> None:
    """Put the tables of the folder's documents into the page, and their plots beside the documents.

    Args:
        folder: Holds fusion.json, rebuild.json and storage.json, or some of them; plots are written there.
        page: The Markdown page; what stands between its marks is replaced.
    """
    documents = {
        name: json.loads((folder / f"{name}.json").read_text())
        for name in ORDER
        if (folder / f"{name}.json").is_file()
    }
    plots = draw_all(documents, folder)
    text = page.read_text()
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    parts = [_section(documents[name], folder.name, plots) for name in documents]
    page.write_text(f"{before}{START}\n\n{''.join(parts)}{END}{after}")


def _section(document: Mapping[str, Any], folder: str, plots: list[str]) -> str:
    name = document["benchmark"]
    lines = [f"### condu bench {name}", "", f"Measured on {machine_line(document)}.", ""]
    for table in tables(document):
        lines += [f"**{table.title}**", "", *_markdown(table), ""]
    for plot in plots:
        if BENCHMARK_OF[plot] == name:
            lines += [f"![{CAPTIONS[plot]}]({folder}/{plot}.png)", ""]
    return "\n".join(lines) + "\n"


def _markdown(table: Table) -> list[str]:
    rule = ["---", *("---:" for _ in table.headings[1:])]
    return ["| " + " | ".join(row) + " |" for row in (table.headings, tuple(rule), *table.rows)]


if __name__ == "__main__":
    update_page(Path(sys.argv[1]), Path(sys.argv[2]))
