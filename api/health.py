"""Looks whether the installation can do what it is there for."""

import shutil
from collections.abc import Callable

from api.dependencies import Services
from api.schemas.installation import HealthAnswer, PartHealth, Status
from catalog.models import list_models
from catalog.revisions import find_revision
from catalog.workers import list_workers
from store.errors import StoreError

Check = Callable[[Services], PartHealth]


def check_health(services: Services) -> HealthAnswer:
    """Every part, looked at now; `failing` only where no answers can be given, else `degraded` at worst."""
    parts: dict[str, PartHealth] = {"catalog": _checked(services, _catalog)}
    reachable = parts["catalog"].status == "ok"
    parts["disk"] = _checked(services, _disk)
    parts["device"] = _checked(services, _device)
    parts["residents"] = _checked(services, _residents)
    if reachable:
        parts["heads"] = _checked(services, _heads)
        parts["workers"] = _checked(services, _workers)
    else:
        unknown = PartHealth(status="failing", detail="unknown while the catalog does not answer")
        parts |= {"heads": unknown, "workers": unknown}
    return HealthAnswer(status=_worst([part.status for part in parts.values()]), parts=parts)


def check_live(services: Services) -> PartHealth:
    """Whether the process is worth keeping: its device thread beats, or was started anew when it did not."""
    status = services.engine.status()
    if status.is_alive:
        return PartHealth(status="ok", detail=f"the device beat {status.beat_age_s:.1f} s ago")
    return PartHealth(
        status="failing",
        detail=f"the device has been silent for {status.beat_age_s:.0f} s: restart the service",
    )


def check_ready(services: Services) -> PartHealth:
    """Whether the next request would be answered, from what is known already: load balancers ask often."""
    if services.stopping.is_set():
        return PartHealth(status="failing", detail="the service is stopping")
    device, residents = _device(services), services.residents.status()
    if device.status == "failing":
        return device
    if services.engine.status().is_overloaded:
        return PartHealth(status="failing", detail=device.detail)
    if residents.unreadable and residents.readable == 0:
        names = ", ".join(residents.unreadable)
        return PartHealth(status="failing", detail=f"no head can be read ({names}); run `condu verify`")
    return PartHealth(status="ok", detail=f"{residents.readable} heads readable; {device.detail}")


def _device(services: Services) -> PartHealth:
    live, status = check_live(services), services.engine.status()
    if live.status == "failing":
        return live
    detail = f"{live.detail}; {status.queued_images} of {status.max_queue} images wait"
    if status.restarts:
        return PartHealth(
            status="degraded",
            detail=f"{detail}; it hung and was started anew {status.restarts} times: look into the log",
        )
    return PartHealth(status="degraded" if status.is_overloaded else "ok", detail=detail)


def _residents(services: Services) -> PartHealth:
    status = services.residents.status()
    if status.problems:
        return PartHealth(status="degraded", detail="; ".join(status.problems))
    return PartHealth(status="ok", detail=f"{status.pinned} experts and bases are held in memory")


def _checked(services: Services, check: Check) -> PartHealth:
    """The check's finding; a check that breaks is a part that fails, not a health route that does."""
    try:
        return check(services)
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller must hear that this part does not work
        return PartHealth(
            status="failing", detail=f"the check itself failed ({type(error).__name__}); see the log"
        )


def _catalog(services: Services) -> PartHealth:
    services.catalog.check()
    return PartHealth(status="ok", detail="reachable, at the newest schema")


def _disk(services: Services) -> PartHealth:
    free_bytes = shutil.disk_usage(services.uploads.folder).free
    if free_bytes < services.uploads.keep_free_bytes:
        floor = services.uploads.keep_free_bytes
        detail = (
            f"{free_bytes} bytes free, less than {floor}: uploads are refused; `condu sweep --delete` helps"
        )
        return PartHealth(status="degraded", detail=detail)
    return PartHealth(status="ok", detail=f"{free_bytes} bytes free")


def _heads(services: Services) -> PartHealth:
    with services.catalog.snapshot() as session:
        models = [model.name for model in list_models(session) if model.head_revision is not None]
        manifests = {name: find_revision(session, name).manifest for name in models}
    broken = [name for name, manifest in manifests.items() if not _is_readable(services, manifest)]
    if not broken:
        return PartHealth(status="ok", detail=f"{len(models)} of {len(models)} heads readable")
    status: Status = "failing" if len(broken) == len(models) else "degraded"
    readable = f"{len(models) - len(broken)} of {len(models)} heads readable"
    return PartHealth(status=status, detail=f"{readable}; not: {', '.join(broken)}; run `condu verify`")


def _is_readable(services: Services, manifest_digest: str) -> bool:
    """Whether the manifest reads and every blob it names is there; their bytes are left to `condu verify`."""
    store = services.store
    try:
        manifest = store.manifest(manifest_digest)
        store.sizes(manifest)
    except StoreError:
        return False
    return all(store.blobs.contains(digest) for digest in manifest.named_blobs())


def _workers(services: Services) -> PartHealth:
    with services.catalog.snapshot() as session:
        workers = list_workers(session)
    alive = sum(worker.is_alive for worker in workers)
    if alive == 0:
        return PartHealth(
            status="degraded", detail="no worker is alive: jobs wait; start one with `condu worker`"
        )
    return PartHealth(status="ok", detail=f"{alive} of {len(workers)} workers alive")


def _worst(statuses: list[Status]) -> Status:
    for status in ("failing", "degraded"):
        if status in statuses:
            return status
    return "ok"
