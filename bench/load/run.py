"""All of `condu bench load`: an installation, the api as users start it, its clients, what it still holds."""

import io
import sys
import tarfile
from collections.abc import Callable, Sequence
from typing import Any

from bench.load.plan import CATALOG_READS, PAUSE_S, LoadPlan, Mix
from bench.load.watching import handles, leaked, percentiles_ms, settled_handles, weighed
from bench.machine import describe_machine
from bench.serving.installation import MODEL, Installation, task_name
from bench.serving.participants import Service, service
from bench.serving.photographs import make_photographs
from bench.serving.processes import ask, running, told
from bench.serving.weights import BaseWeights
from bench.steps import OnProgress, Steps
from bench.stores import scratch_folder
from catalog.blobs import NewBlob, record_blobs
from catalog.datasets import add_dataset

SCHEMA = 1


def run_load(
    base: BaseWeights, plan: LoadPlan, *, is_quick: bool = False, on_progress: OnProgress | None = None
) -> dict[str, Any]:
    """The document: its numbers under `load`, beside the machine, the commit and the date."""
    machine = describe_machine()
    steps = Steps(on_progress)
    steps.plan(plan.num_experts + int(plan.warm_up_s + plan.seconds))
    contents = make_photographs(plan.num_photographs, seed=plan.seed)
    with scratch_folder() as folder:
        photographs = folder / "photographs"
        photographs.mkdir()
        for place, content in enumerate(contents):
            (photographs / f"{place:04}.jpg").write_bytes(content)
        installation = Installation(
            folder / "data", base, contents, num_classes=plan.num_classes, seed=plan.seed
        )
        try:
            for index in range(plan.num_experts):
                installation.learn(index)
                steps.done()
            dataset = _keep_dataset(installation, contents)
        finally:
            installation.close()
        with service(installation.settings.data, photographs, folder / "service.log") as ours:
            measured = _measure(ours, plan, dataset=dataset, steps=steps)
    return {
        "schema": SCHEMA,
        "benchmark": "load",
        "quick": is_quick,
        "seed": plan.seed,
        "machine": machine,
        "load": {
            "base": {"name": base.name, "parameters": base.num_parameters},
            "plan": plan.to_dict(),
            **measured,
        },
    }


def _measure(ours: Service, plan: LoadPlan, *, dataset: str, steps: Steps) -> dict[str, Any]:
    tasks = [task_name(index) for index in range(plan.num_experts)]
    mix = Mix.of(MODEL, tasks, dataset=dataset, plan=plan)
    pid = ours.process.pid
    idle = handles(pid)
    earlier = _send(ours, plan, mix, seconds=plan.warm_up_s, steps=steps)
    before = settled_handles(pid)
    with weighed(pid, plan.sample_every_s) as memory:
        taken = sum(sum(counts.values()) for counts in earlier["statuses"].values())
        found = _send(ours, plan, mix, seconds=plan.seconds, steps=steps, numbered_from=taken)
    after = settled_handles(pid, at_most=before)
    latencies = found["latencies_s"]
    reads = [latency for kind in CATALOG_READS for latency in latencies[kind]]
    statuses = found["statuses"]
    return {
        "clients": plan.clients(),
        "elapsed_s": found["elapsed_s"],
        "requests": sum(sum(counts.values()) for counts in statuses.values()),
        "received_bytes": found["received_bytes"],
        "catalog_reads": {"requests": len(reads), **percentiles_ms(reads)},
        "kinds": {
            kind: {"requests": sum(statuses[kind].values()), **percentiles_ms(latencies[kind])}
            for kind in latencies
            if latencies[kind]
        },
        "statuses": statuses,
        "routes": found["routes"],
        "server_errors": _count(statuses, lambda status: status.startswith("5") and status != "503"),
        "refused": _count(statuses, lambda status: status == "503"),
        "refused_without_retry_after": found["refused_without_retry_after"],
        "without_answer": _count(statuses, lambda status: status == "none"),
        "client_errors": _count(statuses, lambda status: status.startswith("4")),
        "examples": found["examples"],
        "memory": {
            "growth": memory.growth(),
            "first_bytes": memory.sizes_bytes[0],
            "last_bytes": memory.sizes_bytes[-1],
            "times_s": memory.times_s,
            "sizes_bytes": memory.sizes_bytes,
        },
        "handles": {"idle": idle, "before": before, "after": after, "leaked": leaked(before, after)},
    }


def _send(
    ours: Service, plan: LoadPlan, mix: Mix, *, seconds: float, steps: Steps, numbered_from: int = 0
) -> dict[str, Any]:
    orders = {
        "host": "127.0.0.1",
        "port": ours.port,
        "requests": {kind: [each.to_dict() for each in listed] for kind, listed in mix.requests.items()},
        "clients": plan.clients(),
        "pause_s": {kind: plan.pause * pause for kind, pause in PAUSE_S.items()},
        "photographs": str(ours.photographs),
        "seconds": seconds,
        "seed": plan.seed,
        "numbered_from": numbered_from,
    }
    done = 0
    with running([sys.executable, "-m", "bench.load.clients"], ours.log) as process:
        said = ask(process, orders, ours.log)
        while "done_s" in said:
            now = min(int(said["done_s"]), int(seconds))
            steps.done(now - done)
            done = now
            said = told(process, ours.log)
    steps.done(int(seconds) - done)
    return said


def _count(statuses: dict[str, dict[str, int]], is_meant: Callable[[str], bool]) -> int:
    return sum(count for counts in statuses.values() for status, count in counts.items() if is_meant(status))


def _keep_dataset(installation: Installation, contents: Sequence[bytes]) -> str:
    """An archive of two classes in the store; jobs that are submitted name it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for place, content in enumerate(contents):
            member = tarfile.TarInfo(f"{('roof', 'petal')[place % 2]}/{place:04}.jpg")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    blob = installation.store.blobs.put(packed.getvalue())
    with installation.catalog.transaction() as session:
        add_dataset(
            session,
            digest=blob.digest,
            format="folders",
            classes=["petal", "roof"],
            num_images=len(contents),
            size_bytes=blob.size_bytes,
        )
        record_blobs(session, [NewBlob(blob.digest, blob.size_bytes, "dataset")])
    return blob.digest
