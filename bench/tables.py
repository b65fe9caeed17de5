"""A benchmark's numbers as tables that people read, on the terminal and in the docs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A title, headings and rows of text."""

    title: str
    headings: Row
    rows: Sequence[Row]


def tables(document: Mapping[str, Any]) -> list[Table]:
    """The tables of a document as bench.documents makes it."""
    name = document["benchmark"]
    return _TABLES[name](document[name])


def machine_line(document: Mapping[str, Any]) -> str:
    """Where, when and on what code it was measured, in one line."""
    machine = document["machine"]
    versions = machine["versions"]
    told = ", ".join(f"{package} {version}" for package, version in versions.items() if version)
    commit = (machine["commit"] or "unknown")[:12] + (" with changes" if machine["dirty"] else "")
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {size_text(machine['ram_bytes'])} of memory, "
        f"{machine['system']}, Python {machine['python']}, {told}; commit {commit}; {machine['date'][:10]}"
    )


def size_text(size_bytes: float) -> str:
    """Bytes as people read them, steps of 1000."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB"):
        if abs(size) < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def time_text(duration_s: float) -> str:
    """Seconds as people read them."""
    if duration_s < 1e-3:
        return f"{duration_s * 1e6:.0f} us"
    return f"{duration_s * 1e3:.3g} ms" if duration_s < 1 else f"{duration_s:.3g} s"


def count_text(number: float) -> str:
    """A large number as people read it."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.4g} {unit}"
    return f"{number:.0f}"


def _rebuild(measured: Mapping[str, Any]) -> list[Table]:
    timings, cold = measured["timings"], measured["cold"]
    add_s, size_bytes = timings["add"]["median_s"], 4 * measured["parameters"]
    # A mask bit beside three floats is a hundredth of the traffic, and is left out.
    words = {
        "add": ("torch.add(base, delta, alpha=, out=)", 3),
        "copy": ("copy of the same size", 2),
        "rebuild": ("rebuild, packed bits in memory", 3),
        "switch": ("switch a live model to another expert", 3),
        "from_store": ("CheckpointStore.rebuild, trigger decoded from its file", 3),
    }
    warm = [
        (text, time_text(timings[name]["median_s"]), f"{timings[name]['median_s'] / add_s:.2f}",
         f"{moved * size_bytes / timings[name]['median_s'] / 1e9:.1f} GB/s")
        for name, (text, moved) in words.items()
    ]  # fmt: skip
    ours_s = cold["timings"]["from_store"]["median_s"]
    cold_words = {
        "from_store": f"CheckpointStore.rebuild, trigger of {size_text(cold['trigger_bytes'])} from disk",
        "safetensors_load_file": "safetensors load_file, load_state_dict",
        "safetensors_safe_open": "safetensors safe_open, copy_ tensor by tensor",
        "safetensors_load_bytes": "read, safetensors load, copy_",
        "read_in_place": "no library: the file read straight into the parameters",
    }
    cold_rows = [
        (text, *_against(cold["timings"][name]["median_s"], ours_s)) for name, text in cold_words.items()
    ]
    peers = {
        "textbook": "torch on bool masks, new tensors",
        "numpy_packbits": "numpy unpackbits and where",
        "deltatensors": "deltatensors load_delta (1 bit, lossy)",
    }
    peer_rows = [(text, *_peer(measured["peers"][name], measured["peers"])) for name, text in peers.items()]
    parameters = count_text(measured["parameters"])
    return [
        Table(
            f"Rebuild of an expert, {parameters} parameters, warm", ("what", "median", "x add", "moves"), warm
        ),
        Table(
            f"Cold: page cache dropped, checkpoint of {size_text(cold['checkpoint_bytes'])}",
            ("what", "median", "x ours"),
            cold_rows,
        ),
        Table("Other ways to the same expert, warm", ("what", "median", "x ours"), peer_rows),
    ]


def _against(time_s: float, ours_s: float) -> tuple[str, str]:
    return time_text(time_s), f"{time_s / ours_s:.2f}"


def _peer(row: Mapping[str, Any], rows: Mapping[str, Any]) -> tuple[str, str]:
    if "status" in row:
        return row["status"], "-"
    return _against(row["median_s"], rows["rebuild"]["median_s"])


_FUSION_HEADINGS = (
    "tasks",
    "textbook",
    "ours",
    "ours, new memory",
    "speed-up",
    "textbook, kept memory",
    "speed-up",
    "task-parameters/s",
)


def _fusion(measured: Mapping[str, Any]) -> list[Table]:
    parameters = count_text(measured["parameters"])
    by_tasks = [
        (
            tasks,
            *(time_text(row["timings"][name]["median_s"]) for name in ("textbook", "fold")),
            time_text(row["timings"]["fold_into_new_memory"]["median_s"]),
            f"{row['speedup_vs_textbook']:.1f}",
            time_text(row["timings_in_kept_memory"]["textbook"]["median_s"]),
            "-" if row["speedup_in_kept_memory"] is None else f"{row['speedup_in_kept_memory']:.1f}",
            count_text(row["task_parameters_per_s"]),
        )
        for tasks, row in measured["by_tasks"].items()
    ]
    memory = [
        (
            tasks,
            size_text(row["peak_extra_bytes"]),
            f"{row['peak_extra_bytes'] / measured['model_bytes']:.2f}",
            size_text(row["high_water_bytes"]),
        )
        for tasks, row in measured["memory"].items()
    ]
    model = size_text(measured["model_bytes"])
    store, many = measured["store"], measured["thousand_tasks"]
    many_rows = [
        (
            str(row["tasks"]),
            time_text(row["fold_s"]),
            time_text(row["fold_in_memory_s"]),
            size_text(row["bytes_read"]),
            size_text(row["bytes_written"]),
        )
        for row in many["by_tasks"]
    ]
    return [
        Table(
            f"Fusing one more task, {parameters} parameters, in memory",
            _FUSION_HEADINGS,
            by_tasks,
        ),
        Table(
            "The same with files: checkpoint in, durable revision out",
            ("tasks", "CheckpointStore.fold", "textbook and torch.save", "speed-up"),
            [_store_row(store)],
        ),
        Table(
            f"Peak memory of CheckpointStore.fold over base and delta ({model} each)",
            ("tasks", "extra", "model sizes", "high water with delta and mapped file"),
            memory,
        ),
        Table(
            f"One model of {count_text(many['parameters'])} parameters that goes on learning",
            ("tasks", "with files", "in memory", "bytes read", "bytes written"),
            many_rows,
        ),
    ]


def _store_row(store: Mapping[str, Any]) -> Row:
    medians = (store["timings"][name]["median_s"] for name in ("fold", "textbook_and_torch_save"))
    return (str(store["tasks"]), *map(time_text, medians), f"{store['speedup']:.1f}")


def _storage(measured: Mapping[str, Any]) -> list[Table]:
    ratios = measured["whole_ratio"]
    counts = list(next(iter(ratios.values())))
    whole = [(f"ours, {dtype}", *(f"{row[count]:.2f}" for count in counts)) for dtype, row in ratios.items()]
    whole += [_ratio_row(*pair) for pair in _peer_ratios(measured["peers"], counts)]
    marginal = [
        (dtype, count, size_text(size), f"{measured['marginal_bits_per_parameter'][dtype][count]:.3f}",
         f"{measured['marginal_times_less_than_full'][dtype][count]:.1f}")
        for dtype, row in measured["marginal_bytes_per_task"].items()
        for count, size in row.items()
    ]  # fmt: skip
    densities = [
        (count, f"{row['of_all']:.3f}", f"{row['of_changed']:.3f}")
        for count, row in measured["mask_density"].items()
    ]
    parameters = count_text(measured["parameters"])
    return [
        Table(
            f"N fp32 checkpoints divided by the whole store with its fp32 base, {parameters} parameters",
            ("kept as", *(f"{count} tasks" for count in counts)),
            whole,
        ),
        Table(
            "What one more task adds to the whole store",
            ("unified delta", "tasks", "bytes a task", "bits a parameter", "x less than fp32"),
            marginal,
        ),
        Table(
            "Share of mask bits that are set", ("tasks", "of all entries", "of changed entries"), densities
        ),
    ]


def _peer_ratios(
    peers: Mapping[str, Any], counts: list[str]
) -> list[tuple[str, list[str], Mapping[str, float] | str]]:
    words = {
        ("torch_save", "whole_ratio"): "base, fp32 unified, bool masks (torch.save)",
        ("numpy_packbits", "whole_ratio"): "base, fp32 unified, numpy packbits",
        ("deltatensors", "whole_ratio"): "base, deltatensors 1 bit (lossy)",
        ("zipnn", "whole_ratio"): "ZipNN on whole checkpoints",
        ("zipnn", "whole_ratio_of_deltas"): "base, ZipNN on deltas",
        ("safetensors", "whole_ratio"): "safetensors, whole checkpoints",
    }
    return [
        (text, counts, peers[peer].get(column, peers[peer].get("status", "-")))
        for (peer, column), text in words.items()
    ]


def _ratio_row(text: str, counts: list[str], ratios: Mapping[str, float] | str) -> Row:
    if isinstance(ratios, str):
        return (text, ratios, *("-" for _ in counts[1:]))
    return (text, *(f"{ratios[count]:.2f}" for count in counts))


_TABLES = {"rebuild": _rebuild, "fusion": _fusion, "storage": _storage}
