"""The comparison's numbers as tables that people read."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.tables import Row, Table

_CLAIMS = {
    "masks_are_fixed": "masks are fixed after the first pass",
    "rescalers_are_at_most_one": "from the second pass on, every rescaler is at most 1",
    "rescalers_never_fall": "from the second pass on, no rescaler falls",
    "unified_never_grows": "from the second pass on, no entry of u grows",
}


def parity_tables(document: Mapping[str, Any]) -> list[Table]:
    """Agreement of every fold, agreement of the whole chain, the theorem's claims, the order of learning."""
    norms, tasks = document["norms"], document["tasks"]
    steps = [_step_row(norm, step) for norm, found in norms.items() for step in found["steps"]]
    chain = [_chain_row(norm, found["chain"][-1]) for norm, found in norms.items()]
    passes, orders = document["passes"], document["orders"]
    last = len(passes["moved"]) - 1
    claims = [(words, "holds" if passes[claim] else "DOES NOT HOLD") for claim, words in _CLAIMS.items()]
    moved = [
        (f"experts moved by, after {count} extra passes", f"{max(passes['moved'][count]):.2%} at most")
        for count in sorted({1, min(10, last), last})
    ]
    places = [
        (str(place), f"{np.mean(cosine):.3f}", f"{np.mean(distance):.3f}")
        for place, (cosine, distance) in enumerate(
            zip(orders["cosine"], orders["relative_l2"], strict=True), start=1
        )
    ]
    once = orders["one_shot"]
    places.append(("all at once", f"{np.mean(once['cosine']):.3f}", f"{np.mean(once['relative_l2']):.3f}"))
    return [
        Table(
            f"Every fold against the formulas, {document['base']['parameters']:,} parameters",
            (
                "norm",
                "task",
                "near a tie",
                "decided otherwise",
                "u differs elsewhere",
                "mask bits differ elsewhere",
                "largest rescaler error",
            ),
            steps,
        ),
        Table(
            f"{len(tasks)} folds in a row against the formulas alone",
            (
                "norm",
                "near a tie at any step",
                "mask bits differ elsewhere",
                "u the same bit for bit",
                "largest error of u",
                "largest rescaler error",
            ),
            chain,
        ),
        Table("Extra passes without a new task", ("what", "found"), [*claims, *moved]),
        Table(
            "Fidelity at the end by place of learning, mean over tasks",
            ("place", "cosine", "relative L2"),
            places,
        ),
    ]


def _step_row(norm: str, step: Mapping[str, Any]) -> Row:
    counts = ("near_ties", "decided_otherwise", "unified_differs", "masks_differ")
    return (norm, step["task"], *(str(step[count]) for count in counts), f"{step['rescaler_error']:.1e}")


def _chain_row(norm: str, end: Mapping[str, Any]) -> Row:
    return (
        norm,
        str(end["near_ties_so_far"]),
        str(end["masks_differ"]),
        f"{end['share_of_unified_the_same']:.2%}",
        f"{end['largest_unified_error']:.1e}",
        f"{end['rescaler_error']:.1e}",
    )


def disagreement(document: Mapping[str, Any]) -> str | None:
    """Where the store first departs from the formulas; None where it does not."""
    for norm, found in document["norms"].items():
        for kind in ("steps", "chain"):
            for step in found[kind]:
                if not step["agrees"]:
                    return f"norm {norm}, task {step['task']!r} ({kind})"
    return None
