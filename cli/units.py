"""Quantities as people read them."""


def as_bytes(size_bytes: float) -> str:
    """1,234 bytes as `1.2 kB`; steps of 1000, as disks are sold."""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def as_duration(duration_s: float) -> str:
    """75 seconds as `1:15 min`, the coarser the longer."""
    whole_s = round(duration_s)
    if whole_s < 60:
        return f"{whole_s} s"
    minutes, rest_s = divmod(whole_s, 60)
    if minutes < 60:
        return f"{minutes}:{rest_s:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"


def as_percent(share: float | None) -> str:
    """A percentage with one decimal; nothing known is a dash."""
    return "-" if share is None else f"{share:.1f}%"


def short(digest: str | None) -> str:
    """The first twelve characters of a digest, as tables show it."""
    return (digest or "-")[:12]
