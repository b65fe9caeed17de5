"""Writes results into docs/benchmarks.md, between its marks: `python -m bench.continual.page FOLDER PAGE`."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean

from bench.continual.figures import CAPTIONS
from bench.continual.metrics import Scores
from bench.continual.published import MTIL_ORDER_I, OTHERS
from bench.continual.reading import MethodResult, Reading, read_results
from bench.tables import machine_line, size_text

ABLATED = ("condu-no-aggregation", "condu-lora", "condu-no-rescale", "condu-tensor-rescalers")
"""Last of the first is `condu`'s own, at a fraction of the time: learned tasks are answered alike."""
START, END = "<!-- continual: start -->", "<!-- continual: end -->"
MAIN = "continual-mini.json"
BESIDE = (
    "**Beside the papers.** Left: this run (`mini`, a CLIP of 14.6 M parameters). Right, published and not "
    "ours: CLIP ViT-B/16 on the eleven MTIL data sets, order I. Model, data and length of training differ; "
    "what can be compared is which method is above which."
)
FIGURES = ("comparison", "curves", "heat-maps", "storage", "features", "overlap", "fidelity", "routing")


def update_page(folder: Path, page: Path) -> None:
    """Put the tables of the folder's results into the page; what stands between its marks is replaced.

    Args:
        folder: Holds continual-mini.json; continual-mini-*.json are its other seeds and orders, and
            ablation-*.json and routing-*.json are runs with one thing changed.
        page: The Markdown page.
    """
    main = _read(folder / MAIN)
    others = [_read(path) for path in sorted(folder.glob("continual-mini-*.json"))]
    ablations = {
        path.stem.removeprefix("ablation-"): _read(path) for path in sorted(folder.glob("ablation-*.json"))
    }
    routings = {
        path.stem.removeprefix("routing-"): _read(path) for path in sorted(folder.glob("routing-*.json"))
    }
    lines = [
        *_one_seed(main),
        *_beside_the_papers(main),
        *_last_by_task(main),
        *_repeated([main, *others]),
        *_drift(main),
        *(_ablated(main, ablations) if ablations else []),
        *(_routed(main, routings) if routings else []),
        *_figures(folder, page),
    ]
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{START}\n\n" + "\n".join(lines) + f"\n{END}{after}", encoding="utf-8")


def _one_seed(main: Reading) -> list[str]:
    rows = []
    for method in main.methods:
        own, union = method.scores(), method.scores("union")
        rows.append(
            [
                method.name,
                *_scores(own),
                *_scores(union),
                size_text(method.bytes_by_step[-1]),
                size_text(method.kept_bytes_by_step[-1]),
                f"{method.seconds or 0:.0f}",
            ]
        )
    headings = ["method", "Transfer", "Average", "Last", "T, all labels", "A, all labels", "L, all labels"]
    headings += ["to answer", "to go on", "seconds"]
    where = machine_line(main.document)
    return [f"**{main.title}.** Measured on {where}.", "", *_table(headings, rows), ""]


def _beside_the_papers(main: Reading) -> list[str]:
    ours = {method.name: method.scores() for method in main.methods}
    rows = [
        [name, *_scores(ours.get(name)), *(f"{value:.1f}" for value in published)]
        for name, published in MTIL_ORDER_I.items()
    ]
    rows += [[name, "-", "-", "-", *(f"{value:.1f}" for value in found)] for name, found in OTHERS.items()]
    headings = ["method", "Transfer", "Average", "Last", "T, published", "A, published", "L, published"]
    return [
        BESIDE,
        "",
        *_table(headings, rows),
        "",
    ]


def _last_by_task(main: Reading) -> list[str]:
    rows = []
    for method in main.methods:
        found = method.scores()
        if found is not None:
            rows.append([method.name, *(f"{value:.1f}" for value in found.last_by_task), f"{found.last:.1f}"])
    return ["**Last, task by task.**", "", *_table(["method", *main.tasks, "mean"], rows), ""]


def _repeated(readings: Sequence[Reading]) -> list[str]:
    """Mean, least and most over the seeds, for the methods that every run has."""
    lines = []
    for order in sorted({reading.document["order"] for reading in readings}):
        runs = [each for each in readings if each.document["order"] == order and _is_done(each)]
        if len(runs) < 2:
            continue  # one run stands above
        shared = [method.name for method in runs[0].methods if all(_has(run, method.name) for run in runs)]
        rows = []
        for name in shared:
            found = [scores for run in runs if (scores := _method(run, name).scores()) is not None]
            rows.append([name, *(_spread(getattr(each, s) for each in found) for s in _SCORES)])
        seeds = ", ".join(str(run.document["seed"]) for run in runs)
        lines += [
            f"**Order {order}, seeds {seeds}:** mean, and in brackets the least and the most.",
            "",
            *_table(["method", "Transfer", "Average", "Last"], rows),
            "",
        ]
    return lines


def _drift(main: Reading) -> list[str]:
    """How far each expert is from its original at its own step and at the end."""
    rows = []
    for name, steps in main.findings("fidelity").items():
        for number, task in enumerate(main.tasks):
            own, now = steps[number][task], steps[-1][task]
            rows.append(
                [
                    name,
                    task,
                    *(f"{found['relative_l2']:.3f}" for found in (own, now)),
                    *(f"{found['cosine']:.3f}" for found in (own, now)),
                    *(f"{found['density']:.3f}" for found in (own, now)),
                    f"{now['rescaler']:.3f}",
                ]
            )
    headings = ["method", "task", "L2, own step", "L2, now", "cosine, own step", "cosine, now"]
    headings += ["density, own step", "density, now", "lambda, now"]
    return ["**Fidelity** of the served delta to the original one.", "", *_table(headings, rows), ""]


def _ablated(main: Reading, ablations: Mapping[str, Reading]) -> list[str]:
    """ConDU beside individual fine-tuning, with one thing changed at a time."""
    rows = []
    for label, reading in {"as above": main, **ablations}.items():
        for name in ABLATED:
            bound = "individual-lora" if name == "condu-lora" else "individual"
            if not (_has(reading, name) and _has(reading, bound)):
                continue
            ours, best = _method(reading, name).scores(), _method(reading, bound).scores()
            if ours is None or best is None:
                continue
            rows.append([label, name, *_scores(ours), f"{best.last:.1f}", f"{best.last - ours.last:.1f}"])
    headings = ["changed", "method", "Transfer", "Average", "Last", "individual's Last", "gap"]
    return ["**What narrows the gap to individual fine-tuning.**", "", *_table(headings, rows), ""]


def _routed(main: Reading, routings: Mapping[str, Reading]) -> list[str]:
    """ConDU under other ways to answer for images of no named task, which Transfer depends on alone."""
    rows = []
    for label, reading in {"as above": main, **routings}.items():
        if _has(reading, "condu"):
            found = _method(reading, "condu")
            said = reading.document["prediction"]
            who = f"{said['k']}{' and the base' if said['include_base'] else ''}"
            own, union = _scores(found.scores()), _scores(found.scores("union"))
            rows.append([label, who, said["weighting"], own[0], own[1], union[0], union[1]])
    headings = ["routing", "experts", "weighting", "Transfer", "Average", "T, all labels", "A, all labels"]
    return ["**Other ways to answer for tasks not learned.**", "", *_table(headings, rows), ""]


def _figures(folder: Path, page: Path) -> list[str]:
    lines = []
    for name in FIGURES:
        path = folder / f"{Path(MAIN).stem}.{name}.png"
        if path.is_file():
            lines += [f"![{CAPTIONS[name]}]({path.relative_to(page.parent).as_posix()})", ""]
    return lines


_SCORES = ("transfer", "average", "last")


def _scores(found: Scores | None) -> list[str]:
    values = [None if found is None else getattr(found, name) for name in _SCORES]
    return ["-" if value is None else f"{value:.1f}" for value in values]


def _spread(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{mean(known):.1f} ({min(known):.1f}-{max(known):.1f})" if known else "-"


def _has(reading: Reading, name: str) -> bool:
    return any(method.name == name for method in reading.methods)


def _method(reading: Reading, name: str) -> MethodResult:
    return next(method for method in reading.methods if method.name == name)


def _is_done(reading: Reading) -> bool:
    return bool(reading.document["complete"])


def _read(path: Path) -> Reading:
    return read_results(json.loads(path.read_text(encoding="utf-8")))


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *("---:" for _ in headings[1:])]
    return ["| " + " | ".join(row) + " |" for row in (headings, rule, *rows)]


if __name__ == "__main__":
    update_page(Path(sys.argv[1]), Path(sys.argv[2]))
